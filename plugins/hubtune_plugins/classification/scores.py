"""Scores of classification, by counts, and of regression."""

from __future__ import annotations

from typing import Any


def class_scores(gold: Any, found: Any, classes: int) -> dict[str, float]:
    """Accuracy and F1 of one label a row; labels as ids. The same bits as scikit-learn's, from counts per class."""
    import numpy as np

    gold, found = np.asarray(gold), np.asarray(found)
    right = gold == found
    support, given = (np.bincount(ids, minlength=classes) for ids in (gold, found))
    f1 = f1_by_counts(np.bincount(gold[right], minlength=classes), support, given)
    return {
        "accuracy": float(right.mean()),
        "f1_macro": float(f1[(support > 0) | (given > 0)].mean()),
        "f1_weighted": float((f1 * support).sum() / support.sum()),
    }


def several_scores(gold: Any, found: Any, classes: int) -> dict[str, float]:
    """F1 over labels and over rows, and the share of rows with exactly the right labels; labels as ids."""
    truth, guess = spread(gold, classes), spread(found, classes)
    right, support, given = (truth & guess).sum(0), truth.sum(0), guess.sum(0)
    each = f1_by_counts(right, support, given)
    seen = (support > 0) | (given > 0)
    return {
        "f1_micro": float(f1_by_counts(right.sum(), support.sum(), given.sum())),
        "f1_macro": float(each[seen].mean()) if seen.any() else 0.0,
        "accuracy": float((truth == guess).all(1).mean()),
    }


def f1_by_counts(right: Any, support: Any, given: Any) -> Any:
    """F1 from numbers of right answers, of rows that have a class, and of rows that were given it; 0 of none."""
    import numpy as np

    return 2 * right / np.maximum(support + given, 1)


def number_scores(gold: Any, found: Any) -> dict[str, float]:
    """Correlations and errors of a predicted number."""
    import numpy as np

    truth, guess = np.asarray(gold), np.asarray(found)
    flat = len(truth) < 2 or truth.std() == 0 or guess.std() == 0  # where a correlation is not defined
    return {
        "pearson": 0.0 if flat else float(np.corrcoef(truth, guess)[0, 1]),
        "spearman": 0.0 if flat else float(np.corrcoef(ranks(truth), ranks(guess))[0, 1]),
        "mae": float(abs(truth - guess).mean()),
        "rmse": float(((truth - guess) ** 2).mean() ** 0.5),
    }


def ranks(values: Any) -> Any:
    """Ranks of values, from 1; equal ones have the mean of theirs."""
    import numpy as np

    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def class_table(gold: Any, found: Any, names: Any) -> dict[str, Any]:
    """Return precision, recall, F1 and support per class and their averages, as scikit-learn's report has them.

    By counts, since importing scikit-learn takes a second of each command. Classes that neither the right nor the
    given answers have are left out, as from the macro mean of the scores.
    gold, found: ids, or rows of zeros and ones (rows, classes).
    """
    import numpy as np

    gold, found = np.asarray(gold), np.asarray(found)
    several = gold.ndim == 2
    truth, guess = (ids.astype(bool) if several else spread(ids[:, None], len(names)).astype(bool) for ids in (gold, found))
    right, support, given = (truth & guess).sum(0), truth.sum(0), guess.sum(0)
    seen = np.flatnonzero(support + given)
    if not len(seen):
        return {}
    each, weights, total = table_line(right, support, given), support[seen], int(support.sum())
    table: dict[str, Any] = {
        names[index]: {**{name: float(values[index]) for name, values in each.items()}, "support": float(support[index])} for index in seen}
    micro = {name: float(value) for name, value in table_line(right.sum(), support.sum(), given.sum()).items()}
    averages = {"micro avg": micro}
    averages["macro avg"] = {name: float(values[seen].mean()) for name, values in each.items()}
    averages["weighted avg"] = {
        name: float(np.average(values[seen], weights=weights)) if total else 0.0 for name, values in each.items()}
    if several:
        of_rows = table_line((truth & guess).sum(1), truth.sum(1), guess.sum(1))
        averages["samples avg"] = {name: float(values.mean()) for name, values in of_rows.items()}
    else:
        table["accuracy"] = averages.pop("micro avg")["recall"]
    return table | {name: {**values, "support": float(total)} for name, values in averages.items()}


def table_line(right: Any, support: Any, given: Any) -> dict[str, Any]:
    """Precision, recall and F1 from counts; 0 where there is nothing to divide by."""
    import numpy as np

    return {"precision": right / np.maximum(given, 1), "recall": right / np.maximum(support, 1), "f1-score": f1_by_counts(right, support, given)}


def spread(ids: Any, classes: int) -> Any:
    """Lists of ids as rows of zeros and ones."""
    import numpy as np

    rows = np.zeros((len(ids), classes), dtype=int)
    for row, found in zip(rows, ids, strict=True):
        row[found] = 1
    return rows


def confusion(gold: Any, found: Any, classes: int) -> Any:
    """Rows by right id (first axis) and given id, as floats: (classes, classes). Quick, as resampling repeats it."""
    import numpy as np

    pairs = np.asarray(gold) * classes + np.asarray(found)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(float)
