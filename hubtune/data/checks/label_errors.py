"""Label errors: rows whose label a classifier that was fitted on the other rows does not expect."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.errors import MissingExtra

FOLDS = 5
"""Parts of the rows: each is predicted by a classifier that was fitted on the others."""
SHOWN = 20
"""Suspects that the text names; `--json` has all."""
WORDS, LETTERS = 30_000, 60_000
"""Most TF-IDF features of words and pairs of words, and of 2 to 4 letters."""


@dataclass(frozen=True)
class Suspect:
    """A row whose label is likely wrong.

    Attributes:
        row: number in the split, from 1. line: of the file, from 1; None where it has no lines.
        confidence: out-of-fold probability of the likely label. given_confidence: of the given one.
    """

    split: str
    row: int
    line: int | None
    given: str
    likely: str
    confidence: float
    given_confidence: float

    def text(self) -> str:
        """Return the line of the report."""
        line = "" if self.line is None else f" (line {self.line})"
        return (f"{self.split} row {self.row}{line}: {self.given!r} is likely {self.likely!r} "
                f"({self.confidence:.2f} to {self.given_confidence:.2f})")


@dataclass(frozen=True)
class LabelErrors:
    """Rows with a likely wrong label, most suspect first.

    Attributes:
        method: the features and the classifier, in words.
        judged: number of rows. not_judged: rows whose label has too few different inputs.
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
        text = [f"likely wrong labels: {len(self.found):,} of {self.judged:,} rows, by {self.method}"
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


def judged_rows(labels: Sequence[str], inputs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows can be judged, (rows,): their label has at least `FOLDS` different inputs."""
    different: dict[str, set[int]] = {}
    for label, key in zip(labels, inputs.tolist(), strict=True):
        different.setdefault(label, set()).add(key)
    return np.array([len(different[label]) >= FOLDS for label in labels], bool)


def find(
    features: Any, targets: NDArray[np.int64], inputs: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find rows with a likely wrong label, by cleanlab's confident learning.

    Northcutt et al., Confident Learning, arXiv:1911.00068. Equal inputs are in one fold: a copy
    with the same wrong label would confirm it.

    Args:
        features: a list of texts, or an array (rows, features).
        targets: ids of the labels, (rows,). inputs: a hash of each row's inputs, (rows,).

    Returns:
        Rows, most suspect first, and the out-of-fold probabilities (rows, labels).
    """
    from cleanlab.filter import find_label_issues

    probabilities = np.zeros((len(targets), int(targets.max()) + 1))
    for fitted, asked in folds(targets, inputs, seed):
        model = classifier(isinstance(features, list))
        model.fit(select(features, fitted), targets[fitted])
        probabilities[np.ix_(asked, model.classes_)] = model.predict_proba(select(features, asked))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels for which it finds no row, which is an answer
        found = find_label_issues(targets, probabilities, n_jobs=1,
                                  return_indices_ranked_by="self_confidence")
    return np.asarray(found, np.int64), probabilities


def folds(
    targets: NDArray[np.int64], inputs: NDArray[np.int64], seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the rows to fit on and those to predict, of each fold; stratified by label."""
    from sklearn.model_selection import StratifiedKFold

    _, first, group = np.unique(inputs, return_index=True, return_inverse=True)
    cut = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(first), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels that copies leave fewer rows of
        for number, (_, held_out) in enumerate(cut.split(first, targets[first])):
            fold_of[held_out] = number
    of_row = fold_of[group]
    return [(np.flatnonzero(of_row != number), np.flatnonzero(of_row == number)) for number in range(FOLDS)]


def classifier(of_texts: bool) -> Any:
    """Return an unfitted logistic regression: on TF-IDF of texts, or on standardized features."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import StandardScaler

    if not of_texts:
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=WORDS)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=LETTERS)
    return make_pipeline(make_union(letters, words), LogisticRegression(C=10.0, max_iter=300))


def select(features: Any, rows: NDArray[np.int64]) -> Any:
    """Return the features of some rows."""
    return [features[row] for row in rows] if isinstance(features, list) else features[rows]


def suspects(
    found: Sequence[int], probabilities: NDArray[np.float64], targets: NDArray[np.int64],
    names: Sequence[str], places: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    splits: Sequence[tuple[str, int]],
) -> tuple[Suspect, ...]:
    """Describe rows that `find` found.

    Args:
        names: of the labels, by id. places: the numbers, from 0, and lines of all rows, by split.
        splits: the split and the position in it of every row.
    """
    described = []
    for row in found:
        split, index = splits[row]
        numbers, lines = places[split]
        likely = int(probabilities[row].argmax())
        described.append(Suspect(
            split, int(numbers[index]) + 1, int(lines[index]) if len(lines) else None,
            names[targets[row]], names[likely], round(float(probabilities[row, likely]), 4),
            round(float(probabilities[row, targets[row]]), 4)))
    return tuple(described)
