"""Compare a run's model with the one on main of a repository, before it is replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubtune import errors
from hubtune.callbacks import Callbacks
from hubtune.contract import ClassificationTask, registry
from hubtune.data.files import locations
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import HubtuneError, listing
from hubtune.evaluation.paired import Answers, Difference, difference
from hubtune.hub import resolve, upload
from hubtune.recipe import build
from hubtune.runs import functions, predictor, preparation, seal
from hubtune.runs.prepared_data import load_data

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx")
"""Ends of the names of files with weights: a repository without one has no model to replace."""
NOT_COMPARABLE = (
    errors.DataError, errors.ModelError, errors.RecipeError, errors.ResumeError,
    errors.PluginError, errors.NotFound, errors.Gated, errors.Unsafe,
)
"""Errors for which there is no comparison. Others may pass, such as those of the network."""


class NotComparable(Exception):
    """The two models cannot be compared, for the reason given."""


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison with the model on main.

    commit: that model's; None: main is not known, in a dry run. split, rows: which rows both were scored on, and how many.
    reason: of a comparison that could not be made. notes: what it has to be read with.
    """

    repo: str
    commit: str | None
    split: str | None = None
    rows: int = 0
    difference: Difference | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_better(self) -> bool:
        """Tell whether the new model is better, beyond chance."""
        return self.difference is not None and self.difference.verdict == "better"

    def text(self) -> str:
        """Describe it in some sentences."""
        if self.commit is None:
            return f"Nothing was compared with main of {self.repo}: {self.reason.rstrip('.')}."
        there = f"the model on main of {self.repo} ({self.commit[:12]})"
        if self.difference is None:
            return f"The new model cannot be compared with {there}: {self.reason.rstrip('.')}."
        verdict = {"better": "better than", "worse": "worse than",
                   "uncertain": "not certainly better than"}[self.difference.verdict]
        return " ".join([f"The new model is {verdict} {there}: on the same {self.rows} {self.split} "
                         f"rows, {self.difference.text()}.", *self.notes])

    def as_json(self) -> dict[str, Any]:
        """Return what `run.json` and `--json` have of it."""
        found = self.difference
        return {
            "repo": self.repo, "commit": self.commit,
            "verdict": found.verdict if found else "not compared", "reason": self.reason or None,
            "split": self.split, "rows": self.rows,
            "difference": found.as_json() if found else None,
            "notes": list(self.notes), "text": self.text(),
        }


def preview(
    model: predictor.Model, folder: Path, record: Mapping[str, Any], repo: str, staged: Path,
    data: Any, callbacks: Callbacks,
) -> Comparison | None:
    """Compare as `compare` does, for a dry run: an error is the reason of no comparison."""
    try:
        return compare(model, folder, record, upload.full_repo_id(repo), staged, data, callbacks)
    except HubtuneError as error:
        return Comparison(repo, None, reason=error.message)


def compare(
    model: predictor.Model, folder: Path, record: Mapping[str, Any], repo: str, staged: Path,
    data: Any, callbacks: Callbacks,
) -> Comparison | None:
    """Compare a run's model with the one on main, on the run's test or validation rows.

    Args:
        model: of the run. folder, record: of the run.
        staged: the folder with the files that would be sent.
        data: the run's rows, where they came from memory.

    Returns:
        None where main has no model, or these files already.

    Raises:
        HubError: the Hub could not be asked.
    """
    commit = standing_commit(repo, staged)
    if commit is None:
        return None
    try:
        split, rows = held_out_rows(folder, record, data)
        standing = open_standing(f"{repo}@{commit}", model, record)
        callbacks.on_info(f"Comparing with the model on main of {repo} on {len(rows)} {split} rows")
        theirs = answer(standing, rows, callbacks)
    except (NotComparable, *NOT_COMPARABLE) as error:
        reason = error.message if isinstance(error, HubtuneError) else str(error)
        return Comparison(repo, commit, reason=reason)
    notes = notes_on(split, record, standing.model_record)
    del standing  # before the other model's weights are loaded
    ours = answer(model, rows, callbacks)
    found = difference(record["task"]["metric"], ours, theirs, list(BatchedRows(rows)))
    return Comparison(repo, commit, split, len(rows), found, notes=notes)


def standing_commit(repo: str, staged: Path) -> str | None:
    """Return the commit of main to compare with; None if it has no model, or the staged files."""
    try:
        pinned = resolve(repo)
    except errors.NotFound:
        return None
    if not any(file.path.endswith(WEIGHTS) for file in pinned.files):
        return None
    names = [str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()]
    names = [name for name in names if name != seal.CARD]
    is_same = not upload.damaged_files(staged, names, repo, pinned.commit)
    return None if is_same else pinned.commit


def held_out_rows(folder: Path, record: Mapping[str, Any], data: Any) -> tuple[str, Any]:
    """Load the run's rows again; return its test rows, or else its validation rows, with the name.

    Raises:
        NotComparable: there are none, or the rows came from memory and are not given.
        ResumeError: the data has changed since the run.
    """
    recipe = build(record["recipe"])
    if kept := locations.kept_stdin(folder):  # wherever the folder lies now
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=str(kept)))
    if data is None and not recipe.data.source:
        raise NotComparable("the run's rows came from memory; in Python, give them again: "
                            "run.publish(REPO, data=ROWS)")
    task, _ = preparation.choose_plugins(registry.load(), recipe, record)
    found = load_data(recipe, task, data, record, Callbacks())[0].splits
    for split in ("test", "validation"):
        if split in found and len(found[split]):
            return split, found[split]
    raise NotComparable("the run has neither test nor validation rows")


def open_standing(name: str, model: predictor.Model, record: Mapping[str, Any]) -> predictor.Model:
    """Open the model on main, and compare its task and labels with the run's.

    Raises:
        NotComparable: it is for another task, or has other labels.
        ModelError: it cannot be opened.
    """
    standing = predictor.load(name, trust_code=model.trust_code)
    check_comparable(standing, model, record)
    return standing


def check_comparable(
    one: predictor.Model, other: predictor.Model, record: Mapping[str, Any]
) -> None:
    """Compare the tasks and labels of two models, and let both be scored by a run's metrics.

    Args:
        record: of the run whose model is `other`.

    Raises:
        NotComparable: they are for other tasks, or have other labels.
    """
    if one.task.name != other.task.name:
        raise NotComparable(f"it is for the task '{one.task.name}', and the other one for "
                            f"'{other.task.name}'")
    chosen = record["plugins"].get("metrics", {})
    for model in (one, other):
        functions.choose_metrics(registry.load(), model.task, chosen)
    there, here = labels(one), labels(other)
    if there != here:
        both = [f"{listing(sorted(found), 6)} ({kind})" for kind, found in (there, here)]
        raise NotComparable(f"its labels are {both[0]}, and the other one's {both[1]}")


def labels(model: predictor.Model) -> tuple[str, frozenset[str]]:
    """Return the kind of a model's labels, and their names."""
    base = model.open_base()
    kind = model.task.label_kind() if isinstance(model.task, ClassificationTask) else "none"
    return kind, frozenset(map(str, getattr(base.config, "label2id", None) or ()))


def notes_on(
    split: str, record: Mapping[str, Any], standing: Mapping[str, Any]
) -> tuple[str, ...]:
    """Say what favours either model: rows that chose weights, or that may have been trained on."""
    notes = []
    if split == "validation":
        notes.append("Validation rows chose the new model's weights, which favours it: a test "
                     "split would not.")
    if standing.get("data") != record["data"]["fingerprint"][:16]:
        notes.append("The model on main was trained on other data, which may hold some of these "
                     "rows; that would favour it.")
    return tuple(notes)


def answer(model: predictor.Model, rows: Any, callbacks: Callbacks) -> Answers:
    """Predict the rows, with the decisions that were fitted when the model was trained."""
    base = model.load_weights()[1]
    return Answers(model.task, base, model.answer(rows, callbacks))
