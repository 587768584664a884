"""Decisions that validation rows fit for a task of labels, as JSON, and predictions that follow them.

`temperature` divides the logits behind the probabilities that are shown, and changes no label. `thresholds` are by label, of
the model's own probabilities, before the temperature. `abstain_below` is of the probabilities that are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubtune import Prediction, RecipeError

Decisions = dict[str, Any]


def refuse_unfit(options: Any, kind: str) -> None:
    """Refuse options that the kind of labels does not have. Raises RecipeError."""
    threshold = getattr(options, "threshold", 0.5)
    if threshold == "auto" and kind != "multi_label":
        raise RecipeError(f"task.threshold=auto tunes thresholds of several labels a row, and the labels are {kind}.",
                          hint="Leave it out, or for lists of labels: --set task.kind=multi_label")
    if threshold != "auto" and not 0 <= threshold <= 1:
        raise RecipeError(f"task.threshold is a probability from 0 to 1, not {threshold}.")
    if options.calibrate and kind == "regression":
        raise RecipeError("task.calibrate is for probabilities, and the labels are numbers.", hint="Leave it out.")
    wanted = {name: value for name in ("abstain_accuracy", "abstain_coverage") if (value := getattr(options, name)) is not None}
    if wanted and kind != "single_label":
        raise RecipeError(f"task.{next(iter(wanted))} is for one label a row, and the labels are {kind}.", hint="Leave it out.")
    if len(wanted) == 2:
        raise RecipeError("task.abstain_accuracy and task.abstain_coverage are two ways to choose one threshold.",
                          hint="Leave one of them out.")
    for name, value in wanted.items():
        if not 0 < value <= 1:
            raise RecipeError(f"task.{name} is a share above 0 and up to 1, not {value}.", hint=f"For example: --set task.{name}=0.9")


def fit(options: Any, predictions: Sequence[Prediction], truth: Any, several: bool) -> Decisions:
    """Fit what the options ask for.

    truth: ids (rows,), or zeros and ones (rows, labels).
    """
    import numpy as np

    from hubtune_plugins.classification import calibration

    wanted = options.calibrate or (options.threshold == "auto" if several else abstains(options))
    if not wanted:
        return {}
    found, truth = calibration.table(predictions), np.asarray(truth)
    if not calibration.usable(found):
        return {"notes": ["nothing was fitted: probabilities of validation rows are not finite"]}
    decisions: Decisions = {"rows": len(found), "notes": []}
    names = list(predictions[0]["probabilities"])
    if several and options.threshold == "auto":
        fit_thresholds(decisions, names, found, truth, keep_micro=options.metric != "f1_macro")
    if options.calibrate:
        found = fit_temperature(decisions, found, truth, several)
    if not several and abstains(options):
        fit_abstention(decisions, options, found, truth)
    return decisions


def abstains(options: Any) -> bool:
    """Tell if predictions may abstain."""
    return options.abstain_accuracy is not None or options.abstain_coverage is not None


def fit_thresholds(decisions: Decisions, names: Sequence[str], found: Any, truth: Any, keep_micro: bool) -> None:
    """Fit one threshold per label, for its F1. keep_micro: F1 over all labels must not fall."""
    from hubtune_plugins.classification import calibration

    values = calibration.thresholds(found, truth, keep_micro)
    decisions["thresholds"] = dict(zip(names, values, strict=True))
    flat = [name for name, count in zip(names, truth.sum(0), strict=True) if count in (0, len(truth))]
    decisions["notes"].append(
        f"thresholds of {len(names)} labels were tuned on {len(found)} validation rows, from {min(values):.3f} to {max(values):.3f}"
        + (f"; 0.5 for those that no row or every row has: {', '.join(flat[:8])}" if flat else ""))


def fit_temperature(decisions: Decisions, found: Any, truth: Any, several: bool) -> Any:
    """Fit the temperature; returns the probabilities with it."""
    from hubtune_plugins.classification import calibration

    temperature = calibration.fit_temperature(found, truth, several)
    if temperature is None:
        decisions["notes"].append(f"no temperature was fitted: all {len(found)} validation rows are right")
        return found
    after = calibration.scaled(found, temperature, several)
    losses = [calibration.log_loss(values, truth, several) for values in (found, after)]
    errors = [calibration.calibration_error(*calibration.confidences(values, truth, several)) for values in (found, after)]
    decisions["temperature"] = temperature
    decisions["notes"].append(
        f"a temperature of {temperature:.3f} was fitted on {len(found)} validation rows: log loss {losses[0]:.4f} before and "
        f"{losses[1]:.4f} after, expected calibration error {errors[0]:.4f} and {errors[1]:.4f}; only hubtune predict applies it, "
        "and no label changes by it")
    return after


def fit_abstention(decisions: Decisions, options: Any, found: Any, truth: Any) -> None:
    """Fit the probability below which a prediction has no label."""
    from hubtune_plugins.classification import calibration

    confidence, right = calibration.confidences(found, truth, several=False)
    fitted = calibration.fit_abstention(confidence, right, options.abstain_accuracy, options.abstain_coverage)
    if fitted is None:
        decisions["notes"].append(f"no probability reaches an accuracy of {options.abstain_accuracy} on {len(found)} validation "
                                  "rows, so no prediction abstains: lower task.abstain_accuracy")
        return
    threshold, coverage, accuracy = fitted
    decisions |= {"abstain_below": threshold, "expected": {"coverage": coverage, "accuracy": accuracy}}
    decisions["notes"].append(
        f"predictions below a probability of {threshold:.4f} abstain: on {len(found)} validation rows {coverage:.1%} were answered, "
        f"{accuracy:.1%} of these right (the rows that chose it, so expect less)")


def apply(prediction: Prediction, decisions: Mapping[str, Any], several: bool) -> Prediction:
    """Return a prediction as the decisions have it."""
    import numpy as np

    from hubtune_plugins.classification import calibration

    decided, own = dict(prediction), prediction["probabilities"]
    if thresholds := decisions.get("thresholds"):
        decided["labels"] = [name for name, value in own.items() if value >= thresholds[name]]
    if (temperature := decisions.get("temperature")) is not None:
        if not 0 < temperature < float("inf"):
            raise ValueError(f"the temperature is {temperature}")
        values = calibration.scaled(np.array(list(own.values())), temperature, several)
        decided["probabilities"] = dict(zip(own, values.tolist(), strict=True))
    if not several:
        decided["probability"] = decided["probabilities"][prediction["label"]]
        if decided["probability"] < decisions.get("abstain_below", 0.0):
            decided |= {"label": None, "abstained": True}
    return decided


def report(predictions: Sequence[Prediction], right: Any, given: Any, several: bool) -> dict[str, float]:
    """Return the expected calibration error, where probabilities are numbers, and where rows abstained, how the others did."""
    import numpy as np

    from hubtune_plugins.classification import calibration

    found, figures = calibration.table(predictions), {}
    if calibration.usable(found):
        pairs = calibration.confidences(found, np.asarray(right), several)
        figures["expected calibration error"] = calibration.calibration_error(*pairs)
    answered = [not prediction.get("abstained") for prediction in predictions]
    if not all(answered):
        hits = (np.asarray(right) == np.asarray(given))[answered]
        figures |= {"share of rows answered": sum(answered) / len(answered)}
        figures |= {"accuracy of answered rows": float(hits.mean())} if any(answered) else {}
    return figures
