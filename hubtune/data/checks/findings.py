"""Findings: everything that is reported about the data before training, as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hubtune.data.checks.label_errors import LabelErrors
from hubtune.data.files.lines import RowLines
from hubtune.data.labels import row_numbers
from hubtune.data.row_batches import RowOrigin
from hubtune.errors import DataError, listing

Level = Literal["error", "warning", "info"]
SHOWN = 8
"""Number of rows that a finding names."""


@dataclass(frozen=True)
class Finding:
    """One finding in the data.

    Attributes:
        kind: what it is about, in kebab-case: stable for programs.
        level: error: training is refused.
        message: a sentence with counts and rows.
        split: where it was found; None: in all of the data.
        count: number of rows.
        rows: the first of these rows, from 1. lines: their lines in the file, if it has lines.
        mend: operations of `data.clean` that mend it.
        hint: what to do about an error.
    """

    kind: str
    level: Level
    message: str
    split: str | None = None
    count: int = 0
    rows: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()
    mend: tuple[str, ...] = ()
    hint: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the entry of the report."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """Return the sentence, with the operation that mends a warning."""
        if self.mend and self.level == "warning":
            return f"{self.message} To mend it: {clean_setting(self.mend)}"
        return self.message


def clean_setting(names: Sequence[str]) -> str:
    """Return the argument that chooses operations of `data.clean`."""
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"--set 'data.clean=[{quoted}]'"


def of_rows(
    kind: str, level: Level, what: str, indices: Sequence[int], split: str, origin: RowOrigin,
    mend: Sequence[str] = (), hint: str | None = None,
) -> Finding:
    """Return a finding about rows of a split.

    Args:
        what: the beginning of the sentence, which the rows follow: `3 rows have an empty text`.
        indices: positions in the split, from 0.
    """
    numbers = origin.numbers_of(indices[:SHOWN])
    shown = row_numbers(indices, Rows(origin))
    return Finding(
        kind, level, f"{what}: {shown} of {split}.", split, len(indices),
        tuple(number + 1 for number in numbers), tuple(origin.lines_of(numbers)), tuple(mend), hint)


@dataclass(frozen=True)
class Rows:
    """Only the place of rows in the data, as `row_numbers` takes it."""

    origin: RowOrigin


def of_short_rows(lines: Mapping[str, RowLines]) -> list[Finding]:
    """Return the findings on rows of tables that have fewer cells than the header, by split."""
    found = []
    for split, of_split in lines.items():
        if rows := of_split.short:
            have = "1 row has" if len(rows) == 1 else f"{len(rows):,} rows have"
            found.append(of_rows(
                "short-rows", "warning", f"{have} fewer cells than the header, and the cells at the "
                "end are read as empty (a line end or a quote may be wrong)", rows, split,
                RowOrigin(lines=of_split)))
    return found


def of_error(error: DataError) -> list[Finding]:
    """Return the problems of an error as findings."""
    return [Finding("labels" if problem.mend else "refused", "error", problem.message,
                    mend=problem.mend, hint=problem.hint)
            for problem in error.problems or (error,)]


@dataclass
class Report:
    """All findings of a data source.

    Attributes:
        name: of the source.
        columns: the column of each role.
        rows: number of rows by split.
        labels: number of rows of each label, by split.
        cleaned: what `data.clean` did: operation, split, number of rows, sentence.
        lengths: lengths of the training rows, where a model has encoded them.
        label_errors: likely wrong labels, where they were asked for.
    """

    name: str
    columns: Mapping[str, str]
    rows: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    cleaned: list[dict[str, Any]] = field(default_factory=list)
    lengths: Mapping[str, Any] | None = None
    label_errors: LabelErrors | None = None

    @property
    def refused(self) -> bool:
        """True where training would be refused."""
        return any(finding.level == "error" for finding in self.findings)

    def error(self) -> DataError:
        """Return all problems as one error."""
        return DataError.of([
            DataError(found.message, hint=found.hint, mend=found.mend)
            for found in self.findings if found.level == "error"])

    def as_json(self) -> dict[str, Any]:
        """Return the document of `hubtune check --json`."""
        return {
            "data": self.name, "refused": self.refused, "columns": dict(self.columns),
            "rows": self.rows, "labels": self.labels, "cleaned": self.cleaned,
            "findings": [found.as_json() for found in self.findings], "lengths": self.lengths,
            "label_errors": self.label_errors.as_json() if self.label_errors else None,
            "text": [*self.lines(), "", *self.verdict().splitlines()],
        }

    def as_record(self) -> dict[str, Any]:
        """Return what `run.json` keeps."""
        return {"findings": [found.as_json() for found in self.findings],
                "labels": self.labels, "clean": self.cleaned}

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        columns = ", ".join(f"{role} <- {name}" for role, name in self.columns.items())
        text = [f"data      {self.name}",
                f"rows      {', '.join(f'{count} {split}' for split, count in self.rows.items())}",
                f"columns   {columns}"]
        mended = " (as data.clean would leave them)" if self.refused else ""
        for split, counts in self.labels.items():
            text.append(f"labels    {split}: {count_labels(counts)}{mended}")
        if self.lengths:
            text.append(f"lengths   median {self.lengths['median']}, max {self.lengths['longest']}, "
                        f"truncated at {self.lengths['max_length']}: "
                        f"{self.lengths['rows_cut']} of {self.lengths['rows']} rows")
        text += [f"cleaned   {done['text']}" for done in self.cleaned]
        for level, name in (("info", "note"), ("warning", "warning"), ("error", "error")):
            text += [f"{name:9} {found.text()}" for found in self.findings if found.level == level]
        return [*text, *(self.label_errors.lines() if self.label_errors else ())]

    def verdict(self) -> str:
        """Return the last line of the report."""
        errors = [found for found in self.findings if found.level == "error"]
        warnings = sum(found.level == "warning" for found in self.findings)
        if not errors:
            return f"Training would start ({warnings} warning{'' if warnings == 1 else 's'})."
        what = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
        return "\n".join(filter(None, [f"Training would be refused: {what}.", self.error().hint]))


def count_labels(counts: Mapping[str, int]) -> str:
    """Describe label counts: `6 labels: Billing 31, Bug 29 and 4 more`."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = listing([f"{label} {count}" for label, count in ordered], 12)
    return f"{len(counts)} labels: {shown}"
