"""Export a tuned model: trace, prove, quantise, score, keep or throw away, publish."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from hubtune import temporary
from hubtune.callbacks import Callbacks
from hubtune.contract import Exporter, registry
from hubtune.errors import HubtuneError, ModelError, RecipeError
from hubtune.record import versions
from hubtune.runs.exports import files, graph, proof, scores
from hubtune.runs.predictor import Model
from hubtune.runs.run import Run

INT8_SUFFIX = "_int8"


def export(
    model: Model, name: str, out: str | Path | None, int8: bool, data: Any, push: bool,
    callbacks: Callbacks,
) -> dict[str, Any]:
    """Export a model to a folder.

    Args:
        name: of the exporter. out: the folder; None: below the run, or beside it.
        data: labelled rows that int8 is scored on; None: the held-out rows of the run.
        push: publish the folder beside the model's weights.

    Returns:
        The manifest, with `out` and `published`.

    Raises:
        ProofError: the file differs from the trained model; nothing is kept.
    """
    exporter = registry.load().exporter(name)
    folder = Path(out) if out is not None else default_folder(model, name)
    check(model, exporter, folder, int8)
    published_at = repository(model) if push else None
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        document = write(model, exporter, partial, int8, data, callbacks)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = {**document, "out": str(folder), "published": None}
    if published_at is not None:
        from hubtune import hub

        callbacks.on_info(f"Publishing {name}/ to {published_at[0]}")
        with temporary.Folder() as staged:
            shutil.copytree(folder, staged / name)
            pushed = hub.push_beside(staged, *published_at)
        found["published"] = {"repo": pushed.repo, "commit": pushed.commit, "parent": pushed.parent, "url": pushed.url}
    return found


def default_folder(model: Model, name: str) -> Path:
    """Return where files go: below a run, or in the working folder."""
    if isinstance(model, Run):
        return model.folder / name
    return Path(f"{model.name.partition('@')[0].rstrip('/').rpartition('/')[2]}-{name}")


def check(model: Model, exporter: Exporter[Any], folder: Path, int8: bool) -> None:
    """Refuse what cannot be exported, before weights are loaded.

    Raises:
        RecipeError: the exporter has no int8, or the folder holds something else.
        ModelError: the task or the model does not fit.
    """
    if int8 and not exporter.can_quantize:
        raise RecipeError(f"'{exporter.name}' has no int8.", hint="Leave --int8 out, or export with: --format onnx")
    if folder.exists() and not (folder.is_dir() and ((folder / files.MANIFEST).is_file() or not any(folder.iterdir()))):
        raise RecipeError(f"'{folder}' is there, and no folder of an earlier export.", hint="Name another folder with: --out DIR")
    base = model.open_base()
    graph.refuse(model.task)
    if reason := exporter.refuse(model.task, base.config):
        raise ModelError(f"'{exporter.name}' does not take this model: {reason}.", where=model.origin.repo)


def write(
    model: Model, exporter: Exporter[Any], folder: Path, int8: bool, data: Any, callbacks: Callbacks
) -> dict[str, Any]:
    """Write and prove the files of an export."""
    loaded, base = model.load_weights()
    module = graph.plain(loaded, model.origin.repo).to("cpu").float().eval()
    task = model.task
    traced, others = graph.made_batches(module, task, base)
    made = graph.build(module, task, traced, others)
    callbacks.on_info(f"Exporting to {exporter.file}")
    path = folder / exporter.file
    try:
        exporter.export(made, path)
    except HubtuneError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"'{exporter.name}' cannot export this model: {type(error).__name__}: {reason}", where=model.origin.repo,
                         hint="Try another format; --debug shows where it fails.") from error
    usage = exporter.usage(exporter.file, list(made.inputs), list(made.outputs))
    callbacks.on_info("Comparing its outputs with the trained model's in a clean process, on other shapes")
    inputs = [{name: value.numpy() for name, value in graph.tensors(batch).items()} for batch in others]
    with temporary.Folder() as scratch:
        proven = proof.prove(exporter, folder, exporter.file, usage, inputs, graph.expected_outputs(made, others), scratch)
    document: dict[str, Any] = {
        "format": exporter.name, "file": exporter.file, "bytes": size_of(path), "task": task.name,
        "model": {"repo": model.origin.repo if not isinstance(model, Run) else None, "commit": model.origin.commit},
        **files.described(made), "labels": files.labels_of(base.config, task.model), "proof": proven, "int8": None, "versions": versions()}
    if int8:
        document["int8"] = quantized(model, module, exporter, path, made, data, callbacks)
    files.write(folder, document, base, usage)
    return document


def quantized(
    model: Model, module: Any, exporter: Exporter[Any], path: Path, made: Any, data: Any, callbacks: Callbacks
) -> dict[str, Any]:
    """Write the file with int8 weights, and measure what it costs of the task's score."""
    target = path.with_name(f"{path.stem}{INT8_SUFFIX}{path.suffix}")
    callbacks.on_info(f"Quantising to {target.name}")
    exporter.quantize(path, target)
    usage = exporter.usage(target.name, list(made.inputs), list(made.outputs))
    loss = scores.compare(model, module, path.parent, usage, list(made.inputs), data, callbacks)
    callbacks.on_info(f"int8: {loss['text']}")
    return {"file": target.name, "bytes": size_of(target), **loss}


def size_of(path: Path) -> int:
    """Return the bytes of an exported file, and of weights that lie beside it."""
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))


def repository(model: Model) -> tuple[str, str]:
    """Return the repository with a model's weights and the commit that was exported.

    Raises:
        RecipeError: it was not published.
    """
    if isinstance(model, Run):
        published = model.record.get("published")
        if not published or published.get("pr"):
            raise RecipeError("the run is not published on main, so there are no weights to publish beside.", where=str(model.folder),
                              hint=f"Publish it first: hubtune publish {model.folder} REPO")
        return published["repo"], published["commit"]
    if Path(model.name).exists():
        raise RecipeError("a folder has no repository to publish to.", hint="Name the run that was published, or the repository.")
    from hubtune import hub

    return hub.check_push(model.origin.repo), model.origin.commit
