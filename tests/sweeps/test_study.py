"""Optuna's study with an objective that is computed at once: defaults first, pruning, kills, and several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hubtune import RecipeError
from hubtune.sweeps.space import Range
from hubtune.sweeps.trials import Pruned, Trial

pytest.importorskip("optuna", reason="it comes with: pip install 'hubtune[sweep]'")

from hubtune.sweeps.bayesian import OptunaStudy

RANGES = [Range("train.learning_rate", (0.2, 5.0), log=True, relative=True), Range("strategy.rank", (4, 8, 16), True, owner="b")]
PAIRS = [("m", "a"), ("m", "b")]


def opened(folder: Path, **named: Any) -> OptunaStudy:
    values = {"storage": None, "pairs": PAIRS, "ranges": RANGES, "defaults": {"train.learning_rate": 1.0, "b: strategy.rank": 8},
              "higher_is_better": True, "seed": 0, **named}
    return OptunaStudy(folder, **values)


def finish(study: OptunaStudy, trial: Trial, score: float | None, state: str = "complete") -> None:
    trial.score, trial.state = score, state
    study.tell(trial)


def objective(trial: Trial) -> float:
    """Best at three times the default rate, with strategy b."""
    return -abs(float(trial.values["train.learning_rate"]) - 3.0) + (trial.strategy == "b")


def test_defaults_of_every_pair_come_first(tmp_path: Path) -> None:
    study = opened(tmp_path)
    first, second, third = study.ask(), study.ask(), study.ask()
    assert (first.strategy, first.values) == ("a", {"train.learning_rate": 1.0})
    assert (second.strategy, second.values) == ("b", {"train.learning_rate": 1.0, "b: strategy.rank": 8})
    assert 0.2 <= third.values["train.learning_rate"] <= 5.0
    assert third.values["train.learning_rate"] != 1.0
    assert ("b: strategy.rank" in third.values) == (third.strategy == "b")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_it_finds_better_settings_than_the_defaults(tmp_path: Path, sampler: str) -> None:
    study = opened(tmp_path, sampler=sampler)
    for _ in range(30):
        trial = study.ask()
        finish(study, trial, objective(trial))
    scores = [trial.score or 0.0 for trial in study.trials()]
    assert len(scores) == 30
    assert max(scores) > max(scores[:2])
    assert study.method == sampler


def test_a_trial_that_is_worse_at_a_quarter_of_its_training_is_pruned_however_long_it_is(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for score in (0.9, 0.4):  # defaults, which are never pruned
        trial = study.ask()
        trial.planned_epochs = 4.0
        for epoch in range(1, 5):
            trial.epochs = epoch
            study.report(trial, score)
        finish(study, trial, score)
    bad = study.ask()
    bad.planned_epochs = 12.0
    for bad.epochs in (1, 2):
        study.report(bad, 0.1)  # before the first rung nothing is compared
    bad.epochs = 3
    with pytest.raises(Pruned):
        study.report(bad, 0.1)
    finish(study, bad, None, "pruned")
    short = study.ask()
    short.planned_epochs = short.epochs = 1.0
    study.report(short, 0.1)  # at its end, where nothing is spared
    finish(study, short, 0.1)
    assert [trial.state for trial in study.trials()] == ["complete"] * 2 + ["pruned", "complete"]


def test_failures_and_refusals_are_kept_with_their_reason_and_the_study_goes_on(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for state in ("failed", "refused", "too-long"):
        trial = study.ask()
        trial.reason = f"it was {state}"
        finish(study, trial, None, state)
    study.close()
    again = opened(tmp_path)
    assert [(trial.state, trial.reason) for trial in again.trials()] == [
        (state, f"it was {state}") for state in ("failed", "refused", "too-long")]
    finish(again, again.ask(), 0.5)


def test_an_interrupted_trial_is_proposed_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for _ in range(2):
        finish(study, study.ask(), 0.5)
    trial = study.ask()
    finish(study, trial, None, "interrupted")
    study.close()
    again = opened(tmp_path).ask()
    assert (again.strategy, again.values) == (trial.strategy, trial.values)


KILLED = """
import os, sys
from pathlib import Path
from hubtune.sweeps.bayesian import OptunaStudy
from hubtune.sweeps.space import Range
ranges = [Range("train.learning_rate", (0.2, 5.0), log=True, relative=True), Range("strategy.rank", (4, 8, 16), True, owner="b")]
study = OptunaStudy(Path(sys.argv[1]), None, [("m", "a"), ("m", "b")], ranges, {}, True, 0)
trial = study.ask()
print(trial.strategy, trial.number, flush=True)
os._exit(9)  # as by a kill: nothing is told
"""


def test_a_trial_that_a_killed_process_left_is_proposed_again_and_one_of_a_living_process_is_not(tmp_path: Path) -> None:
    living = opened(tmp_path, defaults={})
    mine = living.ask()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert killed.returncode == 9, killed.stderr
    strategy, number = killed.stdout.split()
    assert (strategy, int(number)) == ("b", 1)
    another = opened(tmp_path, defaults={})
    taken = another.ask()
    assert (taken.strategy, taken.number) == ("b", 2)
    assert sorted(trial.number for trial in another.trials() if trial.state == "running") == [mine.number, taken.number]
    finish(living, mine, 0.7)
    finish(another, taken, 0.6)
    assert [trial.score for trial in living.trials()] == [0.7, 0.6]


def test_a_database_may_hold_the_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = opened(tmp_path, storage=url)
    finish(study, study.ask(), 0.5)
    study.close()
    assert [trial.score for trial in opened(tmp_path, storage=url).trials()] == [0.5]


def test_a_storage_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no-such-db:///x") as refused:
        opened(tmp_path, storage="no-such-db:///x")
    assert "sqlite:///" in (refused.value.hint or "")
