"""Sweeps of a tiny model: a race and a search, what stops them, what goes on, and that test rows are scored at the end alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hubtune_plugins.commands.sweep import Sweep as Command

import hubtune
from hubtune import Callbacks, RecipeError, TrainingError
from hubtune.acceleration import embedding_pruning
from hubtune.cli.terminal import Interrupted
from hubtune.evaluation import scoring
from hubtune.evaluation.inference import Predictor
from hubtune.sweeps import trainer
from hubtune.sweeps.trials import Pruned, Study, Trial
from hubtune.testing import CommandConformance

FAST = {"train.epochs": 2.0, "train.batch_size": 8, "train.verify": False, "train.precision": "fp32"}


class Lines(Callbacks):
    """Keep the lines of a sweep."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_info(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def data(reviews: Path, tmp_path: Path) -> Path:
    """Train and test rows in a folder; test texts have a word of their own."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = reviews.read_text(encoding="utf-8").splitlines()
    (folder / "train.csv").write_text("\n".join(lines[:41]) + "\n", encoding="utf-8")
    (folder / "test.csv").write_text("\n".join([lines[0], *lines[41:61]]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def swept(data: Path, tmp_path: Path, tiny_model: Any) -> Any:
    """swept(...) runs a sweep of the tiny model with these arguments, always in the same folder."""
    def call(**named: Any) -> dict[str, Any]:
        values = {"models": [tiny_model("bert")], "data": data, "strategies": ["full", "head"], "out": tmp_path / "sweep", "set": FAST}
        return hubtune.sweep("text-classification", **{**values, **named})

    return call


class TestSweep(CommandConformance):
    plugin = Command

    @pytest.fixture(autouse=True)
    def _given(self, data: Path, tiny_model: Any) -> None:
        self.given = (data, tiny_model("bert"))

    def arguments(self, folder: Path) -> list[str]:
        rows, model = self.given
        sets = [word for key, value in FAST.items() for word in ("--set", f"{key}={str(value).lower()}")]
        return ["text-classification", "--model", str(model), "--data", str(rows), "--strategies", "head", *sets, "--out", str(folder / "sweep")]


def test_a_race_trains_each_strategy_once_and_the_best_as_a_run(swept: Any, tmp_path: Path) -> None:
    seen = Lines()
    found = swept(callbacks=seen)
    assert [(trial["strategy"], trial["state"]) for trial in found["trials"]] == [("full", "complete"), ("head", "complete")]
    assert found["method"] == "race"
    best = max(found["trials"], key=lambda trial: trial["score"])
    assert found["best"]["number"] == best["number"]
    run = hubtune.Run(tmp_path / "sweep" / "best")
    assert run.record["strategy"]["name"] == best["strategy"]
    assert found["scores"]["test"] == run.record["metrics"]["test"]["accuracy"]
    assert found["scores"]["tried"] == 2
    assert f"--strategy {best['strategy']}" in found["command"]
    assert "--set train.epochs=2.0" in found["command"]
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text()) == json.loads(json.dumps(found))
    assert sum("complete" in line for line in seen.lines) == 2


def test_the_winner_has_the_validation_score_of_its_trial(swept: Any) -> None:
    """The same seed, split and settings: a trial is the training that `hubtune train` does."""
    found = swept()
    assert found["scores"]["validation"] == pytest.approx(found["best"]["score"], abs=1e-6)


def test_test_rows_are_not_scored_before_the_winner(swept: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_texts = set((data / "test.csv").read_text(encoding="utf-8").splitlines()[1:])
    train_texts = set((data / "train.csv").read_text(encoding="utf-8").splitlines()[1:])
    seen: list[str] = []
    in_trial: list[str] = []
    real, evaluate, train = Predictor.validate, scoring.evaluate, trainer.Trainer.train

    def validate(self: Any, rows: Any, encoded: Any) -> Any:
        assert not {row["text"] for row in rows} - {line.rpartition(",")[0].strip('"') for line in train_texts}
        in_trial.append("validate")
        return real(self, rows, encoded)

    def scored(predictor: Any, rows: Any, *rest: Any) -> Any:
        seen.append("all splits")
        return evaluate(predictor, rows, *rest)

    def trained(self: Any, trial: Trial, study: Study, prepared: Any, metric: str) -> None:
        assert set(prepared.data.encoded) == {"train", "validation"}
        assert set(prepared.data.rows) == {"validation"}
        train(self, trial, study, prepared, metric)
        assert seen == []

    monkeypatch.setattr(Predictor, "validate", validate)
    monkeypatch.setattr(scoring, "evaluate", scored)
    monkeypatch.setattr(trainer.Trainer, "train", trained)
    swept(strategies=["head"])
    assert test_texts - train_texts
    assert (bool(in_trial), seen) == (True, ["all splits"])


def test_a_finished_sweep_is_not_trained_again(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = swept()
    monkeypatch.setattr(trainer.Trainer, "train", lambda *_: pytest.fail("a trial was trained again"))
    monkeypatch.setattr("hubtune.runs.run.train", lambda *_, **__: pytest.fail("the winner was trained again"))
    assert swept()["scores"] == first["scores"]


def test_another_sweep_in_the_same_folder_is_refused(swept: Any, tmp_path: Path) -> None:
    swept(strategies=["head"])
    with pytest.raises(RecipeError, match="strategies differ") as refused:
        swept(strategies=["head", "full"])
    assert "--out" in (refused.value.hint or "")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RecipeError, match="holds no sweep"):
        swept(out=tmp_path / "full")


def test_trials_that_fail_are_recorded_and_the_others_go_on(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train = trainer.Trainer.train

    def fail(self: Any, trial: Trial, *rest: Any) -> None:
        if trial.strategy == "full":
            raise RuntimeError("out of memory, or so")
        train(self, trial, *rest)

    monkeypatch.setattr(trainer.Trainer, "train", fail)
    found = swept()
    assert [trial["state"] for trial in found["trials"]] == ["failed", "complete"]
    assert re.fullmatch(rf"RuntimeError: out of memory, or so \({re.escape(__name__)}, line \d+\)", found["trials"][0]["reason"])
    assert found["trials"][1]["reason"] is None
    assert found["best"]["strategy"] == "head"


def test_a_strategy_that_the_task_refuses_is_recorded_and_nothing_that_works_is_an_error(swept: Any, tmp_path: Path) -> None:
    found = swept(strategies=["lp-ft", "head"], set={**FAST, "strategy.share": 2.0})
    assert [trial["state"] for trial in found["trials"]] == ["refused", "complete"]
    assert "strategy.share" in found["trials"][0]["reason"]
    with pytest.raises(hubtune.HubtuneError, match="share"):
        swept(strategies=["lp-ft"], set={**FAST, "strategy.share": 2.0}, out=tmp_path / "none")


def test_a_signal_leaves_the_study_and_says_what_goes_on(swept: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train, calls = trainer.Trainer.train, []

    def stop(self: Any, trial: Trial, *rest: Any) -> None:
        calls.append(trial.strategy)
        if len(calls) == 2:
            error = TrainingError("stopped after step 3 of 9")
            error.exit_code = 130
            raise error
        train(self, trial, *rest)

    monkeypatch.setattr(trainer.Trainer, "train", stop)
    with pytest.raises(TrainingError) as stopped:
        swept()
    assert stopped.value.exit_code == 130
    assert "same command goes on" in (stopped.value.hint or "")
    found = swept()
    assert calls == ["full", "head", "head"]
    assert [trial["state"] for trial in found["trials"]] == ["complete", "complete"]


def test_a_signal_of_the_command_line_says_what_goes_on(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise Interrupted(2)

    monkeypatch.setattr(trainer.Trainer, "train", stop)
    with pytest.raises(Interrupted) as stopped:
        swept()
    assert "same command goes on" in stopped.value.__notes__[0]


def test_a_search_needs_the_extra(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(hubtune.MissingExtra) as missing:
        swept(trials=3)
    assert "hubtune[sweep]" in (missing.value.hint or "")


def test_a_trial_of_folds_has_the_mean_of_their_scores_and_the_winner_is_trained_once(swept: Any, tmp_path: Path) -> None:
    settings = {**FAST, "train.epochs": 1.0, "data.folds": 3}
    found = swept(strategies=["head"], set=settings)
    trial = found["best"]
    assert len(trial["folds"]) == len(trial["curve"]) == 3
    assert trial["score"] == pytest.approx(sum(trial["folds"]) / 3, abs=1e-6)
    assert (trial["epochs"], trial["planned_epochs"]) == (3.0, 3.0)
    record = hubtune.Run(tmp_path / "sweep" / "best").record
    assert record["cross_validation"] == {"metric": "accuracy", "mean": trial["score"], "standard_deviation": trial["spread"],
                                          "folds": trial["folds"]}
    assert (record["settings"]["keep"], record["settings"]["early_stopping_patience"]) == ("last", 0)
    assert record["data"]["checks"]["validation"].startswith("held out from train (0.1")
    assert "the mean of 3 folds" in found["notes"][1]
    assert swept(strategies=["head"], set=settings)["scores"] == found["scores"]


def test_train_cross_validates_first_as_a_sweep_scores_a_trial(swept: Any, data: Path, tiny_model: Any, tmp_path: Path) -> None:
    settings = {**FAST, "train.epochs": 1.0, "data.folds": 2}
    arguments = {"model": tiny_model("bert"), "data": data, "strategy": "head", "out": tmp_path / "run"}
    run = hubtune.train("text-classification", **arguments, set=settings)
    found = swept(strategies=["head"], set=settings)
    assert run.record["cross_validation"]["folds"] == found["best"]["folds"]
    assert "Cross-validated on 2 folds" in (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(hubtune.HubtuneError, match="run"):  # before anything is trained
        hubtune.train("text-classification", **arguments, set=settings)
    one = hubtune.train("text-classification", **arguments, set={**settings, "data.fold": 1}, overwrite=True)
    assert "cross_validation" not in one.record
    assert one.record["metrics"]["validation"]["accuracy"] == pytest.approx(found["best"]["folds"][1], abs=1e-6)


def test_standard_input_and_streams_are_refused(swept: Any) -> None:
    with pytest.raises(RecipeError, match="several times"):
        swept(data="-")
    with pytest.raises(RecipeError, match="several times"):
        swept(data="org/name", set={"data.stream": True})


# --------------------------------------------------------------------------------------------- with Optuna


def test_a_search_keeps_to_its_number_of_trials_and_goes_on_with_a_larger_one(swept: Any) -> None:
    pytest.importorskip("optuna")
    settings = {key: value for key, value in FAST.items() if key != "train.epochs"}
    arguments = {"set": {**settings, "train.max_steps": 4}, "strategies": ["head"], "search": {"train.warmup": (0.0, 0.3)}}
    found = swept(trials=3, **arguments)
    assert found["states"] == {"complete": 3}
    assert "train.learning_rate" in found["trials"][0]["settings"]
    assert "train.warmup" not in found["trials"][0]["settings"]  # of the defaults
    assert 0.0 <= found["trials"][1]["settings"]["train.warmup"] <= 0.3
    assert len({trial["settings"]["train.learning_rate"] for trial in found["trials"]}) == 3
    more = swept(trials=4, **arguments)
    assert more["trials"][:3] == found["trials"]
    assert len(more["trials"]) == 4
    assert more["scores"]["validation"] == pytest.approx(more["best"]["score"], abs=1e-6)


def test_a_trial_that_does_not_fit_the_rest_of_the_budget_is_not_begun(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")

    def train(self: Any, trial: Trial, study: Study, prepared: Any, metric: str) -> None:
        trial.epochs, trial.score = trial.planned_epochs, 0.5

    monkeypatch.setattr(trainer.Trainer, "train", train)
    monkeypatch.setattr("hubtune.runs.cost.estimate", lambda prepared: {"seconds": 1e6})
    with pytest.raises(RecipeError, match="no trial fits") as refused:
        swept(budget="1h", strategies=["head"])
    assert "--budget 2500000s" in (refused.value.hint or "")


def test_a_budget_measures_each_strategy_from_real_steps_and_then_trains_it(
    swept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of `full` once failed where embeddings are pruned, and with it each of its trials."""
    pytest.importorskip("optuna")
    monkeypatch.setattr(embedding_pruning, "SMALLEST", 1)
    monkeypatch.setattr(embedding_pruning, "SPARED", 1.0)
    seen: list[Any] = []
    find = embedding_pruning.find
    monkeypatch.setattr(embedding_pruning, "find", lambda context: seen.append(find(context)) or seen[-1])
    found = swept(budget="1h", trials=2)
    assert any(pruning.decision.applies for pruning in seen)
    assert [(trial["strategy"], trial["state"]) for trial in found["trials"]] == [("full", "complete"), ("head", "complete")]
    assert (found["max_trials"], found["budget_seconds"]) == (2, 3600)


def test_pruned_trials_are_recorded_and_never_win(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    train = trainer.Trainer.train

    def prune(self: Any, trial: Trial, *rest: Any) -> None:
        if trial.number:
            trial.curve.append(1.0)
            raise Pruned
        train(self, trial, *rest)

    monkeypatch.setattr(trainer.Trainer, "train", prune)
    found = swept(trials=3, strategies=["head"])
    assert found["states"] == {"complete": 1, "pruned": 2}
    assert found["best"]["number"] == 0
    assert found["scores"]["tried"] == 3


def test_encodings_and_features_are_computed_once(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    from hubtune.acceleration.feature_cache import FeatureCache
    from hubtune.data import encoding

    counts = {"encoded": 0, "features": 0}
    encode, compute, winner = encoding.encode_for_training, FeatureCache.compute, []

    def encoded(*given: Any, **named: Any) -> Any:
        counts["encoded"] += not winner
        return encode(*given, **named)

    def computed(self: Any) -> None:
        counts["features"] += not winner
        compute(self)

    monkeypatch.setattr(encoding, "encode_for_training", encoded)
    monkeypatch.setattr(FeatureCache, "compute", computed)
    monkeypatch.setattr("hubtune.sweeps.sweep.Sweep.finish", lambda self: self.write())
    swept(trials=4, strategies=["head"])
    assert counts == {"encoded": 1, "features": 1}
