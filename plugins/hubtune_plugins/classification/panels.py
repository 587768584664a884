"""Parts of the page of a classification: confusion matrix, calibration, thresholds, and the worst rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hubtune import LinesPanel, MatrixPanel, Panel, Prediction, RowsPanel, ShownRow

SHOWN = 12
"""Rows to look at."""
THRESHOLDS = 50
"""Points of the curves over the threshold."""
Media = Callable[[int], str | None]
"""Returns the image or sound of a row, by its index, as a `data:` address."""


def one_label(predictions: Sequence[Prediction], right: Any, given: Any, labels: Sequence[str], media: Media) -> list[Panel]:
    """Panels of one label per row. right, given: ids (rows,)."""
    cells = Counter(zip(map(int, right), map(int, given), strict=True))
    matrix = MatrixPanel("Confusion matrix", labels, [(*pair, count) for pair, count in sorted(cells.items())],
                         note=f"Of {len(right)} rows.")
    doubts = [1 - prediction["probabilities"].get(labels[index], 0.0) for prediction, index in zip(predictions, right, strict=True)]
    rows = [ShownRow(row, labels[right[row]], said(predictions[row]["probabilities"]), doubts[row], media(row))
            for row in worst(doubts)]
    note = "The rows whose right label had the lowest probability."
    return [matrix, *calibration(predictions, right, several=False), RowsPanel("Worst rows", rows, note=note)]


def several_labels(predictions: Sequence[Prediction], right: Any, labels: Sequence[str], media: Media) -> list[Panel]:
    """Panels of several labels per row. right: zeros and ones (rows, labels)."""
    import numpy as np

    truth = np.asarray(right)
    found = np.array([[prediction["probabilities"].get(name, 0.0) for name in labels] for prediction in predictions])
    errors = abs(found - truth).sum(1)
    rows = [ShownRow(row, ", ".join(name for name, is_right in zip(labels, truth[row], strict=True) if is_right) or "no label",
                     f"{', '.join(predictions[row]['labels']) or 'no label'}\n{said(predictions[row]['probabilities'])}",
                     float(errors[row]), media(row)) for row in worst(errors.tolist())]
    note = "The rows whose probabilities are farthest from right, summed over labels."
    return [thresholds(found, truth), *calibration(predictions, right, several=True), RowsPanel("Worst rows", rows, note=note)]


def numbers(right: Sequence[float], given: Sequence[float], media: Media) -> list[Panel]:
    """Panels of a number per row: the rows with the largest errors."""
    errors = [abs(value - other) for value, other in zip(right, given, strict=True)]
    rows = [ShownRow(row, f"{right[row]:.4g}", f"{given[row]:.4g}", errors[row], media(row)) for row in worst(errors)]
    return [RowsPanel("Worst rows", rows, note="The rows with the largest errors.")]


def worst(values: Sequence[float]) -> list[int]:
    """Return the indices of the largest values, the first of equal ones first."""
    return sorted(range(len(values)), key=lambda row: -values[row])[:SHOWN]


def said(probabilities: Any) -> str:
    """Return the likeliest labels with their probabilities."""
    best = sorted(probabilities, key=probabilities.__getitem__, reverse=True)[:3]
    return ", ".join(f"{name} {probabilities[name]:.3f}" for name in best)


def calibration(predictions: Sequence[Prediction], right: Any, several: bool) -> list[Panel]:
    """Return how often claimed probabilities came true, in bins; nothing where probabilities are no numbers."""
    import numpy as np

    from hubtune_plugins.classification import calibration as fitted

    found = fitted.table(predictions)
    if not fitted.usable(found):
        return []
    claimed, true = fitted.confidences(found, np.asarray(right), several)
    places = np.minimum((claimed * fitted.BINS).astype(int), fitted.BINS - 1)
    points = [(float(claimed[places == place].mean()), float(true[places == place].mean())) for place in np.unique(places)]
    error = fitted.calibration_error(claimed, true)
    what = "every label" if several else "the likeliest label"
    note = f"On the diagonal, probabilities of {what} are as often right as they say. Expected calibration error {error:.4f}."
    return [LinesPanel("Calibration", "probability", "share that is right", {"model": points}, diagonal=True, note=note)]


def thresholds(found: Any, truth: Any) -> LinesPanel:
    """Return precision, recall and F1 over all labels, by the threshold from which a label is given."""
    import numpy as np

    curves: dict[str, list[tuple[float, float]]] = {"precision": [], "recall": [], "F1": []}
    for threshold in np.linspace(0.02, 0.98, THRESHOLDS - 1).tolist():
        given = found >= threshold
        hits, wanted, named = int((given & (truth == 1)).sum()), int(truth.sum()), int(given.sum())
        for name, value in (("precision", hits / named if named else 0.0), ("recall", hits / wanted if wanted else 0.0),
                            ("F1", 2 * hits / (wanted + named) if wanted + named else 0.0)):
            curves[name].append((threshold, value))
    return LinesPanel("Thresholds", "threshold", "over all labels", curves,
                      note="One threshold for all labels, from which on a label is given.")
