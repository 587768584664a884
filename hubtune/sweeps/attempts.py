"""Attempt trials: train those that fit the budget, and keep what came out, also of one that failed."""

from __future__ import annotations

import datetime
import gc
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hubtune.errors import (
    DataError,
    HubError,
    ModelError,
    PluginError,
    RecipeError,
    TrainingError,
)
from hubtune.sweeps.budget import Budget
from hubtune.sweeps.trainer import Trainer
from hubtune.sweeps.trials import Pruned, Study, Trial, best_of, describe_error


@dataclass
class Attempts:
    """The trials of a process. pairs: models and strategies that are tried; metric: it decides."""

    trainer: Trainer
    study: Study
    budget: Budget
    pairs: Sequence[tuple[str, str]]
    metric: str
    higher_is_better: bool

    def attempt(self, trial: Trial) -> None:
        """Train a trial, and keep what came out, also of one that failed."""
        begun = time.monotonic()
        try:
            prepared, _ = self.trainer.prepare(trial)
            if not self.fits(trial):
                trial.state = "too-long"
                return
            begun = time.monotonic()
            self.trainer.train(trial, self.study, prepared, self.metric)
            trial.state = "complete"
        except Pruned:
            trial.state = "pruned"
        except (DataError, HubError):
            trial.state = "interrupted"
            raise
        except (ModelError, PluginError, RecipeError) as error:
            trial.state, trial.reason = "refused", error.message.splitlines()[0]
        except Exception as error:
            trial.state, trial.reason = "failed", describe_error(error)
            if isinstance(error, TrainingError) and error.exit_code >= 128:  # a signal
                trial.state = "interrupted"
                raise
        except BaseException:
            trial.state = "interrupted"
            raise
        finally:
            trial.seconds = round(time.monotonic() - begun, 2)
            trial.finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            self.study.tell(trial)
            gc.collect()  # the model of a trial that failed hangs in its traceback

    def fits(self, trial: Trial) -> bool:
        """Tell whether a trial fits the rest of the budget of time."""
        budget = self.budget
        if budget.seconds is None:
            return True
        trials = self.study.trials()
        expected = budget.estimate(trial, trials, lambda: self.measure(trial))
        left = budget.left(trials, best_of(trials, self.higher_is_better))
        if expected > left:
            trial.reason = f"it would take about {expected:.0f} s, and {left:.0f} s are left"
        return expected <= left

    def measure(self, trial: Trial) -> tuple[float, float]:
        """Return the seconds and the epochs of a trial's model and strategy at default settings, from some steps."""
        from hubtune.runs import cost

        plain = Trial(-1, trial.model, trial.strategy)
        found = cost.estimate(self.trainer.prepare(plain)[0])
        return found["seconds"] * self.trainer.folds, plain.planned_epochs

    def check_some_work(self) -> None:
        """End a sweep in which every pair has failed and nothing worked."""
        trials = self.study.trials()
        bad = [trial for trial in trials if trial.state in ("failed", "refused")]
        if len(bad) >= len(self.pairs) and all(trial.state in ("failed", "refused", "interrupted") for trial in trials):
            reasons = dict.fromkeys(f"{trial.strategy} on {trial.model}: {trial.reason}" for trial in bad)
            raise TrainingError("no trial could be trained:\n" + "\n".join(list(reasons)[:8]),
                                hint="Each is a training of its own: look at one with hubtune train --debug")

    def check_any_fits(self) -> None:
        """Refuse a budget that no trial fits."""
        trials = self.study.trials()
        if trials and all(trial.state == "too-long" for trial in trials):
            first = min(trials, key=lambda trial: trial.number)
            expected = self.budget.estimate(first, trials, lambda: self.measure(first))
            raise RecipeError(f"no trial fits the budget: trial {first.number} was not begun, since {first.reason}.",
                              hint=f"Raise it for a trial and the winner's training: --budget {math.ceil(2.5 * expected)}s; "
                              "or set fewer epochs, or take fewer rows: --set data.limit=N.")
