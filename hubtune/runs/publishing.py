"""Publish a run: compare it with its seal, prove the files that will be sent, and send them."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubtune import hub, temporary
from hubtune.callbacks import Callbacks
from hubtune.devices.clean_python import CleanPython
from hubtune.errors import ProofError, SealError, listing
from hubtune.evaluation import clean_process
from hubtune.files import file_sha256
from hubtune.hub import card
from hubtune.hub.origin import Origin, fetch
from hubtune.record import migrate, write_record
from hubtune.runs import seal, standing
from hubtune.runs.predictor import Model

COPIED = 64 * 2**20
"""Bytes up to which a file is copied before it is proven and sent; a larger one is linked, and its
hash is compared again when it is sent."""


@dataclass(frozen=True)
class Staged:
    """A folder with exactly the files that will be sent, and a description of each."""

    folder: Path
    files: list[dict[str, Any]]
    left_out: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return {"files": sorted(self.files, key=lambda file: str(file["path"])),
                "left_out": self.left_out}

    @property
    def hashes(self) -> dict[str, str]:
        """The sha256 of every file by its path."""
        return {file["path"]: file["sha256"] for file in self.files}


def publish(
    model: Model, folder: Path, repo: str, *, public: bool, pr: bool, replace: bool, dry_run: bool,
    data: Any, callbacks: Callbacks,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Publish a run's model as one commit: on main, or as a pull request where it is not better than main's.

    Args:
        model: of the run. folder: of the run.
        replace: commit to main in any case.
        dry_run: compare the run with its seal and with the model on main, list its files, and send
            nothing.
        data: the run's rows, where they came from memory.

    Returns:
        The run's record as it is then, and what was published.

    Raises:
        SealError: the run was changed since its training ended.
        ProofError: its files do not give the trained model's answers.
    """
    written = read_raw(folder)
    publishable = seal.check(folder, written)
    record = migrate(json.loads(json.dumps(written)))
    with temporary.Folder() as scratch, clean_python() as clean:
        if not dry_run:
            clean.start_early(clean_process.IMPORTED_EARLY)
            repo = hub.check_push(repo, pr)
        staged = stage(folder, publishable, scratch / "stage")
        warn(record, publishable, public, callbacks)
        if not dry_run:
            proof = prove(folder, record, model.locate_base(), staged, clean, callbacks)
        compared = None
        if not (pr or replace):
            compare = standing.preview if dry_run else standing.compare
            compared = compare(model, folder, record, repo, staged.folder, data, callbacks)
        comparison = compared.as_json() if compared else None
        if compared:
            report(compared, command(model, folder, repo, public=public, replace=True), callbacks)
        if dry_run:
            add_card(staged, record, repo)
            return record, {"repo": repo, "commit": None, "parent": None, "url": None, "pr": None,
                            "comparison": comparison, "dry_run": True, **staged.as_json()}
        add_card(staged, {**record, "proof": proof}, repo)
        callbacks.on_info(f"Publishing {len(staged.files)} files to {repo}")
        pr = pr or (compared is not None and not compared.is_better)
        pushed = hub.push(
            staged.folder, repo, message=f"{record['task']['name']} with hubtune", public=public,
            pr=pr, hashes=staged.hashes, is_checked=True,
            parent=compared.commit if compared and not pr else None,
            description=compared.text() if compared else "")
    names = ("repo", "commit", "parent", "url", "pr")
    published = {name: getattr(pushed, name) for name in names} | {"comparison": comparison}
    record |= {"published": {**published, "proof": proof}, "state": "published"}
    write_record(folder, {**written, "published": record["published"], "state": "published"})
    return record, {**published, "dry_run": False, **staged.as_json()}


def clean_python() -> CleanPython:
    """Return a process for a proof, which has not been started."""
    return CleanPython(Path(clean_process.__file__))


def command(model: Model, folder: Path, repo: str, **flags: bool) -> str:
    """Return the command that publishes a run. flags: options by name, and whether each is given."""
    given = [f"--{name}" for name, is_given in flags.items() if is_given]
    trust = ["--trust-code", str(folder)] if model.needs_code() else []
    return shlex.join(["hubtune", "publish", str(folder), repo, *given, *trust])


def report(compared: standing.Comparison, replacing: str, callbacks: Callbacks) -> None:
    """Report a comparison and what follows from it. replacing: the command that replaces."""
    if compared.commit is None:
        callbacks.on_warning(compared.text())
    elif compared.is_better:
        callbacks.on_info(f"{compared.text()} Publishing commits to main.")
    else:
        callbacks.on_warning(
            f"{compared.text()} Publishing opens a pull request, and main stays as it is. "
            f"To replace the model on main without comparing: {replacing}")


def read_raw(folder: Path) -> dict[str, Any]:
    """Read `run.json` as it was written, by whichever version."""
    return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))


def stage(folder: Path, publishable: seal.Publishable, place: Path) -> Staged:
    """Put the files to publish into a folder, all but their card.

    Raises:
        SealError: a file changed since it was compared with the seal.
    """
    place.mkdir()
    files = []
    for name, digest in sorted(publishable.hashes.items()):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        copy_or_link(folder / seal.MODEL / name, path)
        files.append(describe(place, name))
        if files[-1]["sha256"] != digest:
            raise SealError(f"'{name}' changed while it was being published.", where=str(folder),
                            hint="Run the same command again when nothing writes there.")
    return Staged(place, files, list(publishable.left_out))


def add_card(staged: Staged, record: Mapping[str, Any], repo: str) -> None:
    """Render the card beside the staged files."""
    (staged.folder / seal.CARD).write_text(card.render(record, repo), encoding="utf-8")
    staged.files.append(describe(staged.folder, seal.CARD))


def copy_or_link(source: Path, target: Path) -> None:
    """Copy a small file; link to a large one."""
    if source.stat().st_size <= COPIED:
        shutil.copyfile(source, target, follow_symlinks=False)
    else:
        target.symlink_to(source.resolve())


def describe(place: Path, name: str) -> dict[str, Any]:
    """Describe a staged file, as `--json` prints it."""
    path = place / name
    return {"path": name, "size": path.stat().st_size, "sha256": file_sha256(path)}


def prove(
    folder: Path, record: Mapping[str, Any], base: Origin | None, staged: Staged,
    clean: CleanPython, callbacks: Callbacks,
) -> dict[str, Any]:
    """Verify in a clean process that the staged files give the trained model's answers.

    Raises:
        ProofError: they do not; nothing was sent.
    """
    from hubtune.evaluation import verification

    callbacks.on_info("Verifying the files to publish in a clean process, before anything is sent")
    try:
        return verification.verify_model(saved_model(folder, record, base, staged.folder), clean)
    except ProofError as error:
        raise ProofError(f"{error.message} Nothing was sent.", where=str(folder),
                         hint=error.hint) from error


def saved_model(
    folder: Path, record: Mapping[str, Any], base: Origin | None, model: Path
) -> Any:
    """Describe a folder with the model of a run, for verification."""
    from hubtune.evaluation import verification

    calls, recorded = folder / "proof", folder / "proof.safetensors"
    return verification.SavedModel(
        model, record["task"]["model"], record["loads_with"], recorded,
        fetch(base, [*base.small, *base.weights]) if base else None, record["config"],
        calls if calls.is_dir() else None, record.get("processor", "AutoTokenizer"),
        record["task"]["pipeline_tag"],
    )


def warn(
    record: Mapping[str, Any], publishable: seal.Publishable, public: bool, callbacks: Callbacks
) -> None:
    """Say what is not published, and what is not known of the run and its licence."""
    if publishable.left_out:
        callbacks.on_warning("not published, since hubtune did not write it into model/: "
                             f"{listing(publishable.left_out, 20)}.")
    if not publishable.is_sealed:
        callbacks.on_warning(
            "the run is of a version of hubtune that did not seal runs, so its files cannot be "
            "compared with those of training; they are published if they give the outputs that "
            "training recorded.")
    if card.license_of(record) is None:
        callbacks.on_warning(
            "the base model's licence is not known, so the card names none. Name it with --set "
            "publish.license=ID when training.")
    if public and record["base"]["gated"]:
        callbacks.on_warning("the base model is gated: its licence may not allow a public copy "
                             "of its weights.")
