"""Verify a model that hubtune tuned: its files against the seal, its answers against the recorded ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeGuard

from hubtune import temporary
from hubtune.callbacks import Callbacks
from hubtune.devices.clean_python import CleanPython
from hubtune.errors import ModelError, ProofError, listing
from hubtune.evaluation import clean_process
from hubtune.files import file_sha256
from hubtune.hub.origin import Origin, fetch, locate, read_run_record
from hubtune.hub.trust import TrustCode
from hubtune.hub.upload import STALE, exported_files
from hubtune.record import RECORD, versions
from hubtune.runs import predictor, publishing, seal
from hubtune.runs.predictions.opening import choose_task
from hubtune.runs.run import Run

UNSEALED = frozenset({RECORD, seal.CARD, ".gitattributes"})
"""Files of a published model that its own seal does not hold."""
PROCESSORS = ("AutoTokenizer", "AutoProcessor", "AutoImageProcessor", "AutoFeatureExtractor")
"""Classes of transformers that load a processor."""


def verify(
    model: str, callbacks: Callbacks, trust_code: TrustCode = None
) -> dict[str, Any]:
    """Verify a run, a folder, or a model of the Hub.

    Returns:
        What was verified: `model`, `commit`, `files`, `left_out` and `proof`.

    Raises:
        SealError: a run was changed since its training ended.
        ProofError: a model is not what its seal says, or answers otherwise.
        ModelError: hubtune did not tune it.
    """
    folder = Path(model).expanduser()
    with publishing.clean_python() as clean:
        if (folder / "run.json").is_file():
            return verify_run(Run(folder, trust_code=trust_code), clean, callbacks)
        return verify_published(model, clean, callbacks, trust_code)


def verify_run(run: Run, clean: CleanPython, callbacks: Callbacks) -> dict[str, Any]:
    """Compare a run with its seal, and ask its model what was recorded when training ended."""
    clean.start_early(clean_process.IMPORTED_EARLY)  # while this process imports torch
    from hubtune.evaluation import verification

    folder = run.folder
    run.check_code_of_proof()
    publishable = seal.check(folder, publishing.read_raw(folder))
    callbacks.on_info("Verifying the saved model in a clean process")
    saved = publishing.saved_model(folder, run.record, run.locate_base(), folder / seal.MODEL)
    return {
        "model": str(folder), "commit": None, "files": len(publishable.hashes),
        "left_out": list(publishable.left_out), "sealed": publishable.is_sealed,
        "proof": verification.verify_model(saved, clean),
    }


def verify_published(
    model: str, clean: CleanPython, callbacks: Callbacks, trust_code: TrustCode
) -> dict[str, Any]:
    """Compare a model with the seal in its `hubtune.json`, and ask it about the made rows there."""
    origin = locate(model)
    record = read_run_record(origin)
    if not record:
        raise ModelError("it has no hubtune.json: hubtune did not tune it.", where=origin.repo,
                         hint="Only models that hubtune tuned can be verified.")
    proof = record.get("seal")
    if not is_seal(proof):
        raise ProofError("its hubtune.json has no seal: an earlier version of hubtune tuned it, or "
                         "the seal was removed.", where=origin.repo,
                         hint="Publish it again from its run to have one.")
    names = [name for name in proof["files"] if name in origin.files]
    folder = fetch(origin, [*names, RECORD, seal.CARD])
    raw = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    parts = [f"{RECORD}: '{name}' {change}"
             for name, change in seal.changed_parts(raw, proof["record"])]
    if changes := [*changed(folder, origin, proof), *parts]:
        raise ProofError(f"it is not what its seal says: {listing(changes, 40)}.",
                         where=origin.repo, hint="Do not use it. " + made_with(record))
    loaded = predictor.Model(origin, record, choose_task(origin, record, None), model,
                             trust_code=trust_code)
    loaded.check_code_of_proof()
    callbacks.on_info("Verifying the model in a clean process")
    try:
        clean.start_early(clean_process.IMPORTED_EARLY)  # while this process imports torch
        found = ask(loaded, folder, proof, clean)
    except ProofError as error:
        raise ProofError(error.message, where=origin.repo,
                         hint="Do not use it. " + made_with(record)) from error
    return {"model": origin.repo, "commit": origin.commit, "files": len(names), "left_out": [],
            "sealed": True, "proof": found}


def is_seal(proof: Any) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether a part of `hubtune.json` has the form of a seal; anyone may have written it."""
    if not isinstance(proof, Mapping):
        return False
    answers, results = proof.get("answers"), proof.get("results")
    return (
        all(isinstance(proof.get(name), Mapping) for name in ("files", "config", "record"))
        and isinstance(results, Mapping) and all(isinstance(one, Mapping) for one in results.values())
        and proof.get("processor") in PROCESSORS
        and (answers is None or (isinstance(answers, Mapping)
                                 and isinstance(answers.get("answers"), list)
                                 and isinstance(answers.get("meaning"), Mapping)))
    )


def ask(
    loaded: predictor.Model, folder: Path, proof: Mapping[str, Any], clean: CleanPython
) -> dict[str, Any]:
    """Ask a model about made rows in a clean process, and compare its answers.

    The calls are made here: those of a file could name code or files to read.

    Raises:
        ProofError: it does not load, or answers otherwise.
    """
    from hubtune.evaluation import user_calls, verification

    base, adapted = loaded.open_base(), loaded.locate_base()
    task = loaded.task
    answers, calls = proof.get("answers"), None
    if answers:
        calls = user_calls.recorded_calls(task, base, answers)
    with temporary.Folder() as scratch:
        if calls:
            user_calls.write_calls(scratch, calls)
        return verification.verify_model(verification.SavedModel(
            folder, task.model, loaded.model_record["loads_with"], None,
            fetch(adapted, [*adapted.small, *adapted.weights]) if adapted else None,
            proof["config"], scratch if calls else None, proof["processor"], task.pipeline_tag), clean)


def changed(folder: Path, origin: Origin, proof: Mapping[str, Any]) -> list[str]:
    """Describe how the files of a published model, and its card, differ from its seal."""
    sealed = proof["files"]
    missing = [f"{name}: missing" for name in sealed
               if name not in origin.files and name != seal.CARD]
    other = [f"{name}: changed" for name, digest in sealed.items()
             if name in origin.files and name != seal.CARD and file_sha256(folder / name) != digest]
    exports = exported_files(list(origin.files))
    more = [f"{name}: would be loaded, and is not of this model" for name in origin.files
            if name not in sealed and name not in UNSEALED and name not in exports
            and any(fnmatch(name, pattern) for pattern in STALE)]
    return [seal.printable(line) for line in (*missing, *other, *more, *changed_card(origin, proof))]


def changed_card(origin: Origin, proof: Mapping[str, Any]) -> list[str]:
    """Describe the scores on the card that are not those that were measured."""
    found = []
    for entry in origin.card.get("model-index") or ():
        for result in entry.get("results", ()):
            split = result.get("dataset", {}).get("split")
            for metric in result.get("metrics", ()):
                name, value = metric.get("type"), metric.get("value")
                measured = proof["results"].get(split, {}).get(name)
                if not isinstance(measured, int | float) or not isinstance(value, int | float) or abs(
                    value - measured) > 1e-6:
                    found.append(f"{seal.CARD}: says {name} {value} on {split}, and training "
                                 f"measured {measured}")
    return found


def made_with(record: Mapping[str, Any]) -> str:
    """Say with which versions a model was made, where others are installed."""
    here = versions()
    other = {name: value for name, value in record.get("versions", {}).items()
             if here.get(name) != value}
    if not other:
        return "Fetch it again, or ask its author."
    return "It was made with " + ", ".join(
        f"{name} {value} (here: {here.get(name, 'none')})" for name, value in other.items()) + "."
