"""Examine: all findings in the data of a run, before any model is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubtune.contract import ClassificationTask, Column, Task
from hubtune.contract.validation import checked
from hubtune.data.checks import clean as cleaning
from hubtune.data.checks.clean import Lines, origin_of, without
from hubtune.data.checks.findings import Finding, Report, of_error, of_rows
from hubtune.data.checks.scan import LEAKS, Hashes, Scan, groups_of
from hubtune.data.data_splits import DataSplits
from hubtune.data.row_batches import BatchedRows
from hubtune.data.streaming import Stream
from hubtune.errors import DataError, listing


@dataclass(frozen=True)
class Examined:
    """Rows that were examined.

    Attributes:
        data: rows as `data.clean` left them.
        dataset_info: what `Task.validate_data` returned; empty where it refused the rows.
        scans: by split.
    """

    data: DataSplits
    dataset_info: dict[str, Any]
    report: Report
    scans: Mapping[str, Scan]
    lines: Lines


def examine(
    data: DataSplits, task: Task[Any], operations: Sequence[str], lines: Lines
) -> Examined:
    """Clean the rows, and find everything that is to be said of them.

    Problems do not end the search: what they hide is looked for in the rows as `data.clean` would
    leave them.

    Args:
        data: returned by `load_splits`.
        operations: of `data.clean`.
        lines: finds the lines of the file, by split.
    """
    data, done, scans = cleaning.clean(data, task.columns, operations, lines)
    rows = {split: found.rows for split, found in scans.items()}
    report = Report(data.name, data.columns, rows, cleaned=done)
    report.findings += unlabelled_findings(data.checks.get("unlabelled", {}))
    usable: DataSplits | None = data
    for split, found in scans.items():
        report.findings += gap_findings(found, task.columns, split, origin_of(data, split, lines))
        gaps = sorted({row for rows_of_role in found.gaps.values() for row in rows_of_role})
        if gaps and usable is not None:
            whole = isinstance(data.splits[split], Stream) or len(gaps) == found.rows
            usable = None if whole else without(usable, split, gaps)
    dataset_info = validate(usable, task, lines, report) if usable is not None else {}
    for split, found in scans.items():
        if isinstance(data.splits[split], Stream):
            continue
        origin = origin_of(data, split, lines)
        report.findings += copy_findings(found, task, split, origin)
        if found.blanks and not any("strip-labels" in one.mend for one in report.findings):
            report.findings.append(blank_finding(found, split, origin))
    return Examined(data, {} if report.refused else dataset_info, report, scans, lines)


def unlabelled_findings(unlabelled: Mapping[str, int]) -> list[Finding]:
    """Return the findings on splits without labels."""
    found = []
    if count := unlabelled.get("test"):
        found.append(Finding("unlabelled-split", "info", f"the {count:,} rows of test have no labels: "
                             "they are not scored.", "test", count))
    if count := unlabelled.get("validation"):
        found.append(Finding(
            "unlabelled-split", "error", f"the {count:,} rows of validation have no labels, and the "
            "best weights are chosen by their score.", "validation", count,
            hint="Leave the validation rows out of the data: some are then held out from train."))
    return found


def gap_findings(
    found: Scan, columns: Sequence[Column], split: str, origin: Any
) -> list[Finding]:
    """Return the findings on empty inputs and missing labels."""
    findings = []
    for column in columns:
        rows = found.gaps.get(column.role, ())
        if not rows:
            continue
        labelled = column.kind == "label"
        what = f"a missing {column.role}" if labelled else f"an empty {column.role}"
        findings.append(of_rows(
            "missing-label" if labelled else "empty", "error",
            f"{len(rows)} of {found.rows} rows have {what}", rows, split, origin,
            mend=["drop-unlabelled" if column.target else "drop-empty"],
            hint="Fill them in or remove these rows, and run the same command again."))
    return findings


def validate(data: DataSplits, task: Task[Any], lines: Lines, report: Report) -> dict[str, Any]:
    """Let the task validate the rows; if it refuses them, again as `data.clean` would mend them.

    Returns:
        What it returned; empty where it refuses the rows either way.
    """
    for attempt in range(2):
        rows = {split: BatchedRows(found, origin_of(data, split, lines))
                for split, found in data.splits.items()}
        try:
            dataset_info = checked(task, "validate_data", task.validate_data(rows))
        except DataError as error:
            known = {found.message for found in report.findings}
            report.findings += [found for found in of_error(error) if found.message not in known]
            mend = [name for found in report.findings for name in found.mend
                    if name in ("strip-labels", "merge-label-case")]
            if attempt or not mend:
                return {}
            data, *_ = cleaning.clean(data, task.columns, mend, {})
            continue
        label_findings(rows, task, dataset_info, report)
        return dict(dataset_info)
    return {}


def label_findings(
    rows: Mapping[str, BatchedRows], task: Task[Any], dataset_info: Mapping[str, Any],
    report: Report,
) -> None:
    """Add what the task decided about the labels, their counts, and those that are too rare."""
    report.findings += [Finding("label-form", "info", note)
                        for note in dataset_info.get("notes", ())]
    if not isinstance(task, ClassificationTask):
        return
    for split, found in rows.items():
        counts = count(task, found, dataset_info)
        if counts is None:
            return
        report.labels[split] = counts
    counts = report.labels["train"]
    single = [label for label in dataset_info.get("labels", ()) if counts.get(label) == 1]
    if single:
        report.findings.append(Finding(
            "rare-labels", "warning",
            f"{'a label has' if len(single) == 1 else f'{len(single)} labels have'} one row in train: "
            f"{listing(map(repr, single))}. One row is too few to learn a label and to validate it.",
            "train", len(single), mend=("drop-rare-labels",)))
    never = [label for label in dataset_info.get("labels", ()) if not counts.get(label)]
    if never:
        report.findings.append(Finding(
            "absent-labels", "warning", f"labels that no row of train has: {listing(map(repr, never))}.",
            "train", len(never)))


def count(
    task: ClassificationTask[Any], rows: Any, dataset_info: Mapping[str, Any]
) -> dict[str, int] | None:
    """Count the rows of each label in a split, in the order of the labels; None if not told."""
    labels = task.row_labels(rows, dataset_info)
    if len(labels) != len(rows):
        return None
    counts = Counter(label for of_row in labels for label in of_row)
    order = [*dataset_info.get("labels", ()), *sorted(counts)]
    return {label: counts[label] for label in dict.fromkeys(order) if counts[label]}


def absent_findings(
    task: Task[Any], data: DataSplits, dataset_info: Mapping[str, Any]
) -> tuple[list[Finding], dict[str, dict[str, int]]]:
    """Return the labels of train that the splits to be scored lack, and the counts of all splits.

    data: with its validation split.
    """
    counts: dict[str, dict[str, int]] = {}
    if not isinstance(task, ClassificationTask) or any(
            isinstance(rows, Stream) for rows in data.splits.values()):
        return [], counts
    for split, rows in data.splits.items():
        found = count(task, BatchedRows(rows), dataset_info)
        if found is None:
            return [], counts
        counts[split] = found
    findings = []
    for split in [name for name in counts if name != "train"]:
        gone = [label for label in counts["train"] if label not in counts[split]]
        if gone:
            findings.append(Finding(
                "absent-labels", "warning",
                f"no row of {split} has {listing(map(repr, gone))}: its scores say nothing of "
                f"{'this label' if len(gone) == 1 else 'these labels'}.", split, len(gone)))
    return findings, counts


def copy_findings(found: Scan, task: Task[Any], split: str, origin: Any) -> list[Finding]:
    """Return the findings on duplicates, and on equal inputs with other labels."""
    findings = []
    copies = cleaning.repeated(found)
    mend = ["drop-duplicates"] if split == "train" else []
    if copies:
        what = "1 row repeats" if len(copies) == 1 else f"{len(copies):,} rows repeat"
        findings.append(of_rows("duplicates", "warning", f"{what} an earlier row", copies, split,
                                origin, mend))
    if any(column.kind == "label" for column in task.columns):
        other = cleaning.conflicting(found)
        if other:
            first, _ = groups_of(found.inputs)
            texts = len(np.unique(first[other]))
            mend = ["drop-conflicts"] if split == "train" else []
            findings.append(of_rows(
                "conflicts", "warning", f"{len(other):,} rows with {texts:,} "
                f"different input{'' if texts == 1 else 's'} have several labels for the same input",
                other, split, origin, mend))
    return findings


def blank_finding(found: Scan, split: str, origin: Any) -> Finding:
    """Return the finding on labels with blanks at their ends, which are part of their names."""
    return of_rows("blank-labels", "warning", f"{len(found.blanks):,} rows have a label with blanks "
                   "at its ends", found.blanks, split, origin, ["strip-labels"])


def leak_findings(
    data: DataSplits, inputs: Mapping[str, Hashes], lines: Lines
) -> list[Finding]:
    """Return the rows whose inputs are also in a split before theirs.

    Args:
        data: with its validation split.
        inputs: hashes of the inputs of each row, by split.
    """
    findings = []
    for one, other in LEAKS:
        if one in inputs and other in inputs:
            rows = np.flatnonzero(np.isin(inputs[one], inputs[other])).tolist()
            if rows:
                mend = ["drop-leaked"] if (one, other) == ("test", "train") or (
                    other == "train" and data.checks["validation"] == "given") else []
                what = "1 row also appears in" if len(rows) == 1 else f"{len(rows):,} rows also appear in"
                findings.append(of_rows(
                    "leakage", "warning", f"{what} {other}, so scores will be optimistic (leakage)",
                    rows, one, origin_of(data, one, lines), mend))
    return findings
