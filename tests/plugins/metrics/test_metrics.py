"""Metrics that a recipe chooses: as scikit-learn has them, and used in runs and evaluations."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from hubtune_plugins.metrics.balanced_accuracy import BalancedAccuracy
from hubtune_plugins.metrics.mcc import Matthews
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

import hubtune
from hubtune import MetricFunction
from hubtune.contract import registry
from hubtune.testing import MetricConformance


class TestMatthews(MetricConformance):
    plugin = Matthews


class TestBalancedAccuracy(MetricConformance):
    plugin = BalancedAccuracy


@pytest.mark.parametrize(("kind", "theirs"), [(Matthews, matthews_corrcoef), (BalancedAccuracy, balanced_accuracy_score)])
@pytest.mark.parametrize("labels", [2, 5])
def test_it_is_scikit_learn_s(kind: type[MetricFunction[Any]], theirs: Any, labels: int) -> None:
    draw = np.random.default_rng(labels)
    for rows in (1, 2, 3, 10, 200):
        references, predictions = (draw.integers(0, labels, rows).tolist() for _ in range(2))
        found = kind().compute(references, predictions, [str(label) for label in range(labels)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's, of labels without a row
            assert found == pytest.approx(float(theirs(references, predictions)), abs=1e-12)


ROWS = [{"text": "win a prize now" if n % 4 == 0 else f"see you at {n}", "label": "spam" if n % 4 == 0 else "ham"} for n in range(40)]
FAST = {"train.max_steps": 2, "train.verify": False, "train.precision": "fp32", "train.metrics": ["mcc"]}


def test_chosen_metrics_stand_beside_the_task_s_own(tiny_model: Any, tmp_path: Any) -> None:
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run", set=FAST)
    assert list(run.metrics) == ["accuracy", "f1_macro", "f1_weighted", "mcc"]
    assert run.record["task"]["metric"] == "accuracy"
    found = run.evaluate(ROWS)
    assert list(found["metrics"]) == list(run.metrics)
    assert "mcc" in {**found["intervals"], **found["no_intervals"]}
    assert hubtune.load(tmp_path / "run" / "model").evaluate(ROWS)["metrics"] == found["metrics"]


def test_without_its_plugin_a_model_predicts_and_says_what_its_evaluation_needs(
    tiny_model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run", set=FAST)
    place = run.folder / "model" / "hubtune.json"
    record = json.loads(place.read_text())
    record["metrics"]["mcc"] |= {"distribution": "their-metrics", "version": "3"}
    place.write_text(json.dumps(record))
    plugins = registry.load()
    del plugins.metrics["mcc"]
    monkeypatch.setattr(registry, "load", lambda hook=None: plugins)
    model = hubtune.load(run.folder / "model")
    assert model.predict(["hello"])[0]["label"] in ("ham", "spam")
    with pytest.raises(hubtune.UnknownPlugin, match="the metric 'mcc' of their-metrics 3, which is not installed"):
        model.evaluate(ROWS)


def test_a_lower_metric_may_decide(tiny_model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Missed(MetricFunction[Any]):
        """The share of rows with another label."""

        contract = 2
        name = "missed"
        summary = "share of wrong rows"
        higher_is_better = False

        def compute(self, references: Any, predictions: Any, labels: Any) -> float:
            return float(np.mean(np.asarray(references) != np.asarray(predictions)))

    plugins = registry.load()
    plugins.put(Missed)
    monkeypatch.setattr(registry, "load", lambda hook=None: plugins)
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run",
                        set={**FAST, "train.max_steps": 12, "train.evals_per_epoch": 2, "train.metrics": [],
                             "train.metric_for_best_model": "missed", "train.learning_rate": 3e-3})
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    seen = {line["step"]: line["validation_missed"] for line in lines if "split" in line}
    assert seen[run.record["best_step"]] == min(seen.values())
    assert run.metrics["missed"] == pytest.approx(1 - run.metrics["accuracy"])
