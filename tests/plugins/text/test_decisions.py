"""Thresholds, temperature and abstention: the arithmetic against scikit-learn, and whole runs that keep what was fitted."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hubtune_plugins.classification import calibration, fitted_decisions
from sklearn.metrics import brier_score_loss, f1_score, log_loss

import hubtune

FAST = {"train.max_steps": 2, "train.verify": False, "train.precision": "fp32", "train.learning_rate": 1e-3}


def drawn(rows: int = 400, labels: int = 4, hot: float = 3.0, seed: int = 0) -> tuple[Any, Any]:
    """Overconfident probabilities (rows, labels) of one label, and the right ids: drawn from logits, which `hot` multiplies."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, labels)) * 1.5
    true = calibration.scaled(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1.0, False)
    truth = np.array([rng.choice(labels, p=row) for row in true])
    return calibration.scaled(true, 1 / hot, False), truth


def test_losses_are_scikit_learn_s() -> None:
    found, truth = drawn()
    assert calibration.log_loss(found, truth, False) == pytest.approx(log_loss(truth, found, labels=range(4)))
    assert calibration.brier(found, truth, False) == pytest.approx(brier_score_loss(truth, found, labels=range(4), scale_by_half=False))
    several = (np.random.default_rng(1).random((50, 3)) < 0.4).astype(int)
    theirs = np.mean([log_loss(several[:, k], found[:50, k], labels=[0, 1]) for k in range(3)])
    assert calibration.log_loss(found[:50, :3], several, True) == pytest.approx(theirs)
    assert calibration.brier(found[:50, :3], several, True) == pytest.approx(
        np.mean([brier_score_loss(several[:, k], found[:50, k]) for k in range(3)]))


@pytest.mark.parametrize("several", [False, True])
def test_a_temperature_undoes_what_made_probabilities_too_sure(several: bool) -> None:
    found, truth = drawn(4000)
    if several:
        rng = np.random.default_rng(0)
        true = rng.uniform(0.02, 0.98, (4000, 4))
        truth, found = (rng.random(true.shape) < true).astype(int), calibration.scaled(true, 1 / 3, True)
    temperature = calibration.fit_temperature(found, truth, several)
    assert temperature == pytest.approx(3.0, rel=0.1)
    after = calibration.scaled(found, temperature, several)
    assert (after.argmax(1) == found.argmax(1)).all()
    before, now = (calibration.calibration_error(*calibration.confidences(p, truth, several)) for p in (found, after))
    assert now < 0.4 * before
    beside = [calibration.log_loss(calibration.scaled(found, temperature * factor, several), truth, several) for factor in (0.99, 1.01)]
    assert calibration.log_loss(after, truth, several) < min(beside)


def test_no_temperature_without_an_error_to_fit_it_by() -> None:
    assert calibration.fit_temperature(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), False) is None
    assert calibration.fit_temperature(np.array([[0.9, 0.1]]), np.array([[1, 0]]), True) is None


def test_temperature_of_extreme_probabilities_is_bounded() -> None:
    found = np.array([[1.0, 0.0]] * 9 + [[1.0, 0.0]])
    temperature = calibration.fit_temperature(found, np.array([0] * 9 + [1]), False)
    assert temperature == pytest.approx(20.0, rel=0.5)
    assert np.isfinite(calibration.scaled(found, temperature, False)).all()
    assert np.isfinite(calibration.scaled(np.array([[1.0, 0.0]]), 0.05, True)).all()


def test_calibration_error_has_fifteen_bins_of_equal_width() -> None:
    assert calibration.calibration_error(np.array([1.0, 0.95]), np.array([True, False])) == pytest.approx(0.475)
    assert calibration.calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0.0
    assert calibration.calibration_error(np.array([0.6] * 10), np.array([True] * 6 + [False] * 4)) == pytest.approx(0.0)


def test_thresholds_have_the_highest_f1() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        truth = (rng.random(30) < 0.3).astype(int)
        found = np.round(np.clip(rng.random(30) * 0.6 + 0.2 * truth, 0, 1), 1)  # rounded: many ties
        chosen = calibration.threshold_for_f1(found, truth)
        best = max(f1_score(truth, found >= at, zero_division=0.0) for at in np.linspace(0, 1.01, 500))
        if 0 < truth.sum() < 30:
            assert f1_score(truth, found >= chosen, zero_division=0.0) == pytest.approx(best)


@pytest.mark.parametrize(("found", "truth", "threshold"), [
    ([0.1, 0.2, 0.9], [0, 0, 0], 0.5), ([0.1, 0.2], [1, 1], 0.5), ([0.1, 0.9], [0, 1], 0.5), ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),
    ([0.6, 0.7, 0.8], [0, 0, 1], 0.75), ([0.3, 0.3, 0.3], [1, 0, 1], 0.15),
])
def test_thresholds_at_the_edges(found: list[float], truth: list[int], threshold: float) -> None:
    assert calibration.threshold_for_f1(np.array(found), np.array(truth)) == pytest.approx(threshold)


def test_abstention_by_accuracy_and_by_coverage() -> None:
    confidence, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])
    assert calibration.fit_abstention(confidence, right, 0.99, None) == pytest.approx((0.75, 0.5, 1.0))
    assert calibration.fit_abstention(confidence, right, 0.75, None) == pytest.approx((0.0, 1.0, 0.75))
    assert calibration.fit_abstention(confidence, right, None, 0.6) == pytest.approx((0.65, 0.75, 2 / 3))
    assert calibration.fit_abstention(confidence, ~right, 0.9, None) is None
    same = np.array([0.5] * 4)
    assert calibration.fit_abstention(same, right, None, 0.25) == pytest.approx((0.0, 1.0, 0.75)), "equal ones are answered together"


def test_a_label_that_cannot_be_told_does_not_lower_the_f1_over_all() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 3)) < [0.5, 0.4, 0.1]).astype(int)
    found = np.clip(0.35 + 0.3 * truth + rng.normal(size=truth.shape) * 0.1, 0, 1)
    found[:, 2] = rng.random(200) * 0.1  # says nothing of its label
    own, kept = (np.array(calibration.thresholds(found, truth, keep)) for keep in (False, True))

    def micro(thresholds: Any) -> float:
        return float(f1_score(truth, found >= thresholds, average="micro"))

    assert own[2] < 0.1
    assert kept[2] == 0.5
    assert micro(own) < micro(0.5) < micro(kept)
    assert own[:2].tolist() == kept[:2].tolist()


def options(**given: Any) -> Any:
    return SimpleNamespace(**{"metric": "auto", "threshold": 0.5, "calibrate": False, "abstain_accuracy": None, "abstain_coverage": None, **given})


@pytest.mark.parametrize(("given", "kind", "message"), [
    ({"threshold": "auto"}, "single_label", "task.threshold=auto"), ({"threshold": 1.5}, "multi_label", "from 0 to 1"),
    ({"calibrate": True}, "regression", "task.calibrate"), ({"abstain_accuracy": 0.9}, "multi_label", "one label a row"),
    ({"abstain_accuracy": 0.9, "abstain_coverage": 0.5}, "single_label", "two ways"), ({"abstain_coverage": 0.0}, "single_label", "share above 0"),
    ({"abstain_accuracy": 1.5}, "single_label", "share above 0"),
])
def test_options_that_do_not_fit_are_refused(given: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(hubtune.RecipeError, match=message):
        fitted_decisions.refuse_unfit(options(**given), kind)


def test_an_accuracy_out_of_reach_is_said() -> None:
    predictions = [{"label": "a", "probability": 0.9, "probabilities": {"a": 0.9, "b": 0.1}}] * 4
    found = fitted_decisions.fit(options(abstain_accuracy=0.9), predictions, [1, 1, 1, 0], False)
    assert "abstain_below" not in found
    assert "no probability reaches an accuracy of 0.9" in found["notes"][0]


def test_probabilities_that_are_no_numbers_fit_nothing() -> None:
    predictions = [{"label": "a", "probability": math.nan, "probabilities": {"a": math.nan, "b": 0.1}}] * 4
    assert "not finite" in fitted_decisions.fit(options(calibrate=True), predictions, [1, 1, 1, 0], False)["notes"][0]


COLOURS = ("red", "green", "blue")
SEVERAL = [{"text": " ".join(c for k, c in enumerate(COLOURS) if n >> k & 1) or "none", "label": [c for k, c in enumerate(COLOURS) if n >> k & 1]}
           for n in [*range(8)] * 6]
ONE = [{"text": f"{'win' if n % 3 == 0 else 'see you'} {n}", "label": "spam" if n % 3 == 0 else "ham"} for n in range(48)]


def test_thresholds_are_kept_published_and_honoured(tiny_model: Any, tmp_path: Any, capsys: Any) -> None:
    data = {"train": SEVERAL, "validation": SEVERAL, "test": SEVERAL[:24]}
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=data, out=tmp_path / "run",
                        set={**FAST, "task.threshold": "auto", "task.calibrate": True})
    record = run.record
    thresholds = record["decisions"]["thresholds"]
    assert list(thresholds) == list(json.loads((run.folder / "model" / "config.json").read_text())["hubtune"]["thresholds"])
    assert set(thresholds.values()) != {0.5}
    assert record["metrics"]["validation"]["f1_macro"] >= record["undecided"]["validation"]["metrics"]["f1_macro"]
    loaded = hubtune.load(tmp_path / "run" / "model")
    assert loaded.evaluate(SEVERAL[:24])["metrics"] == pytest.approx(record["metrics"]["test"])
    texts = [row["text"] for row in SEVERAL[:8]]
    answers = loaded.predict(texts)
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "thresholds of 3 labels were tuned on 48 validation rows" in card
    assert "Without these decisions, on test: f1_micro" in card
    snippet = card.split("```python\n")[1].split("```")[0]
    for text, answer in zip(texts, answers, strict=True):
        names: dict[str, Any] = {}
        exec(snippet.replace("NAMESPACE/NAME", str(run.folder / "model")).replace("What a lovely day", text), names)
        assert sorted(eval(capsys.readouterr().out)) == sorted(answer["labels"])


def test_a_number_is_a_threshold_of_all_labels(tiny_model: Any, tmp_path: Any) -> None:
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=SEVERAL, out=tmp_path / "run", set={**FAST, "task.threshold": 0})
    assert run.record["decisions"] == {}
    assert "undecided" in run.record
    assert all(answer["labels"] == list(answer["probabilities"]) for answer in run.predict(["red"]))


def test_temperature_and_abstention_are_kept(tiny_model: Any, tmp_path: Any) -> None:
    from hubtune.cli import output

    run = hubtune.train("text-classification", model=tiny_model("bert"), data={"train": ONE, "validation": ONE}, out=tmp_path / "run",
                        set={**FAST, "task.calibrate": True, "task.abstain_coverage": 0.5})
    decisions = run.record["decisions"]
    assert 0.5 <= decisions["expected"]["coverage"] < 0.8
    texts = [row["text"] for row in ONE]
    answers, plain = run.predict(texts), hubtune.load(run.folder / "model").predict(texts)
    assert answers == plain
    abstained = [answer for answer in answers if answer.get("abstained")]
    assert 1 - len(abstained) / len(texts) == pytest.approx(decisions["expected"]["coverage"], abs=0.05)
    assert {answer["label"] for answer in abstained} == {None}
    assert all(answer["probability"] < decisions["abstain_below"] for answer in abstained)
    assert output.lines([{"row": 0, **abstained[0]}], None)[0].startswith("0  (abstains)")
    report = run.record["reports"]["validation"]
    assert report["share of rows answered"] == pytest.approx(decisions["expected"]["coverage"])
    assert report["expected calibration error"] <= run.record["undecided"]["validation"]["report"]["expected calibration error"] + 0.02
    assert run.record["metrics"] == {"validation": pytest.approx(run.record["undecided"]["validation"]["metrics"])}, "no label changes"


@pytest.mark.parametrize("decisions", [
    {"thresholds": {"other": 0.5}}, {"thresholds": 3}, {"temperature": "hot"}, {"temperature": 0}, {"temperature": -1.0}, {"abstain_below": "x"}])
def test_decisions_that_do_not_fit_are_one_error(decisions: Any, tiny_model: Any, tmp_path: Any) -> None:
    from hubtune.contract import registry
    from hubtune.evaluation import decisions as core
    from hubtune.recipe import PluginChoice

    kind = "multi_label" if "thresholds" in decisions else "single_label"
    task: Any = registry.load().task(PluginChoice("text-classification", {"kind": kind}))
    task.kind = SimpleNamespace(name=kind)
    prediction = {"label": "a", "labels": ["a"], "probability": 0.9, "probabilities": {"a": 0.9, "b": 0.1}}
    with pytest.raises(hubtune.ModelError, match="decisions do not fit"):
        core.apply(task, [prediction], decisions)
