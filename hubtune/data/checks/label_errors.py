"""Label errors: labels that a classifier that was fitted on the other rows does not expect, or misses."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hubtune.errors import MissingExtra

FOLDS = 5
"""Parts of the rows: each is predicted by a classifier that was fitted on the others."""
SHOWN = 20
"""Suspects that the text names; `--json` has all."""
WORDS, LETTERS = 30_000, 60_000
"""Most TF-IDF features of words and pairs of words, and of 2 to 4 letters."""


class Issue(NamedTuple):
    """A likely wrong label of the row at an index; see `Suspect`."""

    row: int
    given: str | None
    likely: str | None
    confidence: float
    given_confidence: float


@dataclass(frozen=True)
class Suspect:
    """A label that is likely wrong, or missing.

    Attributes:
        row: number in the split, from 1. line: of the file, from 1; None where it has no lines.
        given, likely: the labels. Of several labels per row, one is None: the given label is likely
            wrong, or the likely one missing.
        confidence: out-of-fold probability of what is likely. given_confidence: of what is given.
    """

    split: str
    row: int
    line: int | None
    given: str | None
    likely: str | None
    confidence: float
    given_confidence: float

    def text(self) -> str:
        """Return the line of the report."""
        line = "" if self.line is None else f" (line {self.line})"
        said = (f"{self.likely!r} is likely missing" if self.given is None else f"{self.given!r} is likely wrong"
                if self.likely is None else f"{self.given!r} is likely {self.likely!r}")
        return f"{self.split} row {self.row}{line}: {said} ({self.confidence:.2f} to {self.given_confidence:.2f})"


@dataclass(frozen=True)
class LabelErrors:
    """Likely wrong labels, most suspect first.

    Attributes:
        method: the features and the classifier, in words.
        judged: number of rows. not_judged: rows with a label that has too few different inputs; of several labels
            per row, the others are judged.
    """

    method: str
    judged: int
    not_judged: int
    found: tuple[Suspect, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the entry of the report."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """Return the lines of the report: a summary, and the most suspect rows."""
        few = f"; {self.not_judged:,} rows of labels with fewer than {FOLDS} different inputs were not judged"
        rows = len({(one.split, one.row) for one in self.found})
        text = [f"likely wrong labels: {rows:,} of {self.judged:,} rows, by {self.method}"
                f"{few if self.not_judged else ''}"]
        text += [f"  {one.text()}" for one in self.found[:SHOWN]]
        if (more := len(self.found) - SHOWN) > 0:
            text.append(f"  and {more:,} more, which --json lists")
        return text


def require_cleanlab() -> None:
    """Refuse to look for label errors without cleanlab.

    Raises:
        MissingExtra: it is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("cleanlab") is None:
        raise MissingExtra("likely wrong labels are found with the package cleanlab, which is not installed.",
                           hint="pip install 'hubtune[labels]'")


def judged_labels(labels: Sequence[Sequence[str]], inputs: NDArray[np.int64], several: bool) -> list[str]:
    """Return the labels that can be judged: they have at least `FOLDS` different inputs.

    Args:
        several: rows may have several labels, or none; then as many different inputs have to be without the label.
    """
    different: dict[str, set[int]] = {}
    for of_row, key in zip(labels, inputs.tolist(), strict=True):
        for label in of_row:
            different.setdefault(label, set()).add(key)
    rows = len(np.unique(inputs))
    return sorted(label for label, keys in different.items()
                  if len(keys) >= FOLDS and not (several and rows - len(keys) < FOLDS))


def find(
    features: Any, labels: Sequence[str], names: Sequence[str], inputs: NDArray[np.int64], seed: int
) -> list[Issue]:
    """Find rows with a likely wrong label, most suspect first, by cleanlab's confident learning.

    Northcutt et al., Confident Learning, arXiv:1911.00068. Equal inputs are in one fold: a copy
    with the same wrong label would confirm it.

    Args:
        features: a list of texts, or an array (rows, features).
        labels: of the rows. names: all labels. inputs: a hash of each row's inputs, (rows,).
    """
    from cleanlab.filter import find_label_issues

    ids = {name: number for number, name in enumerate(names)}
    targets = np.array([ids[label] for label in labels], np.int64)
    probabilities = np.zeros((len(targets), len(names)))
    for fitted, asked in folds(targets, inputs, seed):
        model = classifier(isinstance(features, list))
        model.fit(select(features, fitted), targets[fitted])
        probabilities[np.ix_(asked, model.classes_)] = model.predict_proba(select(features, asked))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels for which it finds no row, which is an answer
        found = find_label_issues(targets, probabilities, n_jobs=1,
                                  return_indices_ranked_by="self_confidence")
    likely = probabilities.argmax(1)
    return [Issue(row, labels[row], names[likely[row]], probabilities[row, likely[row]], probabilities[row, targets[row]])
            for row in np.asarray(found).tolist()]


def find_several(
    features: Any, labels: Sequence[Sequence[str]], names: Sequence[str], inputs: NDArray[np.int64], seed: int
) -> list[Issue]:
    """Find labels that are likely wrong or missing, most suspect first, where rows have several or none.

    Each label is judged by itself, as present or absent (Thyagarajan et al., Identifying Incorrect Annotations in
    Multi-Label Classification Data, arXiv:2211.13895). Folds are stratified by the rarest label of each row.

    Args: see `find`; labels that are not among the names are left out.
    """
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    ids = {name: number for number, name in enumerate(names)}
    kept = [[ids[label] for label in of_row if label in ids] for of_row in labels]
    given = np.zeros((len(kept), len(names)), np.int64)
    for row, of_row in enumerate(kept):
        given[row, of_row] = 1
    counts = given.sum(0)
    rarest = np.array([min(of_row, key=counts.__getitem__, default=len(names)) for of_row in kept], np.int64)
    probabilities = np.zeros(given.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `find`; and of labels that the rows to fit on all have, or none
        for fitted, asked in folds(rarest, inputs, seed):
            model = classifier(isinstance(features, list), several=True)
            model.fit(select(features, fitted), given[fitted])
            probabilities[asked] = model.predict_proba(select(features, asked))
        found = find_multilabel_issues_per_class(kept, probabilities, n_jobs=1)
    issues = []
    for row, label in np.argwhere(found).tolist():
        present, share = bool(given[row, label]), float(probabilities[row, label])
        of_given = share if present else 1.0 - share
        issues.append(Issue(row, names[label] if present else None, None if present else names[label], 1.0 - of_given, of_given))
    return sorted(issues, key=lambda issue: issue.given_confidence)


def folds(
    targets: NDArray[np.int64], inputs: NDArray[np.int64], seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the rows to fit on and those to predict, of each fold; stratified by label.

    Inputs are numbered as they first occur: by their hashes the folds, and what is found, would be
    others in each process.
    """
    from sklearn.model_selection import StratifiedKFold

    _, first, group = np.unique(inputs, return_index=True, return_inverse=True)
    order = first.argsort()
    first, group = first[order], order.argsort()[group]
    cut = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(first), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels that copies leave fewer rows of
        for number, (_, held_out) in enumerate(cut.split(first, targets[first])):
            fold_of[held_out] = number
    of_row = fold_of[group]
    return [(np.flatnonzero(of_row != number), np.flatnonzero(of_row == number)) for number in range(FOLDS)]


def classifier(of_texts: bool, several: bool = False) -> Any:
    """Return an unfitted logistic regression: on TF-IDF of texts, or on standardized features.

    several: for zeros and ones (rows, labels), one regression for each label.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=10.0 if of_texts else 0.01, max_iter=300)
    last = OneVsRestClassifier(regression) if several else regression
    if not of_texts:
        return make_pipeline(StandardScaler(), last)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=WORDS)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=LETTERS)
    return make_pipeline(make_union(letters, words), last)


def select(features: Any, rows: NDArray[np.int64]) -> Any:
    """Return the features of some rows."""
    return [features[row] for row in rows] if isinstance(features, list) else features[rows]


def suspects(
    found: Sequence[Issue], places: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    splits: Sequence[tuple[str, int]],
) -> tuple[Suspect, ...]:
    """Describe what was found.

    Args:
        places: the numbers, from 0, and lines of all rows, by split.
        splits: the split and the position in it of every row.
    """
    described = []
    for issue in found:
        split, index = splits[issue.row]
        numbers, lines = places[split]
        described.append(Suspect(
            split, int(numbers[index]) + 1, int(lines[index]) if len(lines) else None, issue.given, issue.likely,
            round(float(issue.confidence), 4), round(float(issue.given_confidence), 4)))
    return tuple(described)
