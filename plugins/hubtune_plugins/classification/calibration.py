"""Decisions from probabilities, fitted on validation rows: temperature, thresholds per label, abstention.

Arrays of one row per prediction: probabilities (rows, labels); truth, ids (rows,), or of several labels zeros and ones
(rows, labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BINS = 15
"""Bins of equal width of the calibration error, as in Guo et al., arXiv:1706.04599."""
SMALLEST = 1e-12
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature."""
DEFAULT = 0.5
"""Threshold of a label that has nothing to be tuned on."""


def logits_of(probabilities: Array, several: bool) -> Array:
    """Return logits that give these probabilities by softmax or, for several labels, by sigmoid."""
    safe = np.clip(np.asarray(probabilities, float), SMALLEST, 1 - SMALLEST if several else None)
    return np.asarray(np.log(safe) - np.log1p(-safe) if several else np.log(safe))


def scaled(probabilities: Array, temperature: float, several: bool) -> Array:
    """Return the probabilities of logits that are divided by the temperature; their order stays."""
    logits = logits_of(probabilities, several) / temperature
    if several:
        return np.asarray(1 / (1 + np.exp(-logits)))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def log_loss(probabilities: Array, truth: Array, several: bool) -> float:
    """Return the mean negative log-likelihood: per row, or for several labels per row and label."""
    found = np.clip(np.asarray(probabilities, float), SMALLEST, 1 - SMALLEST)
    right = np.where(truth == 1, found, 1 - found) if several else found[np.arange(len(truth)), truth]
    return float(-np.log(right).mean())


def brier(probabilities: Array, truth: Array, several: bool) -> float:
    """Return the mean squared error of probabilities: summed over labels per row, or per row and label."""
    target = truth if several else np.eye(np.shape(probabilities)[1])[truth]
    squares = (np.asarray(probabilities, float) - target) ** 2
    return float(squares.mean() if several else squares.sum(1).mean())


def confidences(probabilities: Array, truth: Array, several: bool) -> tuple[Array, Array]:
    """Return each claimed probability and whether it came true: of the likeliest label, or of every label."""
    found = np.asarray(probabilities, float)
    if several:
        return found.ravel(), np.asarray(truth).ravel() == 1
    return found.max(1), found.argmax(1) == truth


def calibration_error(confidence: Array, right: Array) -> float:
    """Return the expected calibration error, over 15 bins of equal width (Naeini et al., 2015)."""
    places = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    gaps = np.bincount(places, np.asarray(confidence) - np.asarray(right), minlength=BINS)
    return float(np.abs(gaps).sum() / len(places))


def fit_temperature(probabilities: Array, truth: Array, several: bool) -> float | None:
    """Return the temperature of the lowest log loss; None where the rows have no error to fit it by.

    The loss is convex in 1 / temperature, whose best value a golden-section search finds to 1e-6.
    """
    logits = logits_of(probabilities, several)
    errors = (probabilities >= DEFAULT) != truth if several else logits.argmax(1) != truth
    if not errors.any():
        return None  # any colder temperature is better: without an error nothing says how sure is too sure
    def loss(inverse: float) -> float:
        return log_loss(scaled(probabilities, 1 / inverse, several), truth, several)

    return float(np.clip(1 / minimum(loss, 1 / HOTTEST, 1 / COLDEST), COLDEST, HOTTEST))


def minimum(function: Any, low: float, high: float) -> float:
    """Find the minimum of a convex function by golden-section search (Kiefer, 1953)."""
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    values = function(left), function(right)
    while high - low > 1e-6 * max(1.0, low):
        if values[0] <= values[1]:
            high, right = right, left
            left = high - ratio * (high - low)
            values = function(left), values[0]
        else:
            low, left = left, right
            right = low + ratio * (high - low)
            values = values[1], function(right)
    return (low + high) / 2


def threshold_for_f1(probabilities: Array, truth: Array) -> float:
    """Return the threshold of a label's highest F1: probabilities and truth (rows,).

    Of the thresholds that are as good, 0.5 where it is one of them, else the one in the middle of the nearest gap between
    two probabilities. 0.5 for a label without a row, or with all.
    """
    truth = np.asarray(truth) == 1
    if truth.all() or not truth.any():
        return DEFAULT
    order = np.argsort(-np.asarray(probabilities, float), kind="stable")
    ranked, hits = np.asarray(probabilities, float)[order], truth[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + truth.sum())
    last = np.append(ranked[:-1] != ranked[1:], True)  # equal probabilities are given together
    best = last & (f1 >= f1[last].max() - 1e-12)
    below = np.append(ranked[1:], 0.0)[best]
    above = ranked[best]
    if ((below < DEFAULT) & (above >= DEFAULT)).any():
        return DEFAULT
    middles = (below + above) / 2
    return float(middles[np.abs(middles - DEFAULT).argmin()])


def thresholds(probabilities: Array, truth: Array, keep_micro: bool) -> list[float]:
    """Return a threshold per label; probabilities and truth (rows, labels).

    keep_micro: a label's own best is taken, labels of the highest F1 first, only where the F1 over all labels does not fall. The best F1 of a
    label that the model cannot tell is had by giving it to nearly all rows (Lipton et al., arXiv:1402.1892).
    """
    found, right = np.asarray(probabilities, float), np.asarray(truth) == 1
    tuned = [threshold_for_f1(found[:, label], right[:, label]) for label in range(found.shape[1])]
    if not keep_micro:
        return tuned
    plain, best = counts(found >= DEFAULT, right), counts(found >= np.array(tuned), right)
    order = sorted(range(len(tuned)), key=lambda label: -best[label, 0] / max(1, best[label, 1]))
    chosen, total = [DEFAULT] * len(tuned), plain.sum(0)
    for label in order:
        other = total - plain[label] + best[label]
        if other[0] * total[1] >= total[0] * other[1] or not total[1]:
            chosen[label], total = tuned[label], other
    return chosen


def counts(given: Array, right: Array) -> Array:
    """Return numerator and denominator of each label's F1, (labels, 2), whose sums are those of micro F1."""
    return np.stack([2 * (given & right).sum(0), given.sum(0) + right.sum(0)], 1)


def fit_abstention(
    confidence: Array, right: Array, accuracy: float | None, coverage: float | None
) -> tuple[float, float, float] | None:
    """Return the probability from which to answer, and the coverage and accuracy with it; None where none suffices.

    accuracy: of the answers, to be reached with the most of them. coverage: share of the rows to be answered.
    """
    order = np.argsort(-np.asarray(confidence, float), kind="stable")
    ranked, hits = np.asarray(confidence, float)[order], np.asarray(right)[order].cumsum()
    counts = np.arange(1, len(hits) + 1)
    fits = np.append(ranked[:-1] != ranked[1:], True)
    if accuracy is not None:
        found = np.flatnonzero(fits & (hits / counts >= accuracy))[-1:]
    else:
        found = np.flatnonzero(fits & (counts >= (coverage or 0.0) * len(counts)))[:1]
    if not len(found):
        return None
    place = int(found[0])
    below = float(ranked[place] + ranked[place + 1]) / 2 if place + 1 < len(ranked) else 0.0
    return below, float(counts[place] / len(counts)), float(hits[place] / counts[place])


def table(rows: Sequence[dict[str, Any]]) -> Array:
    """Return the probabilities of predictions as an array (rows, labels)."""
    return np.array([list(row["probabilities"].values()) for row in rows], float)


def usable(probabilities: Array) -> bool:
    """Tell if there are rows, and all their probabilities are numbers."""
    return probabilities.size > 0 and all(map(isfinite, probabilities.ravel()))
