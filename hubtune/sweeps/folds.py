"""Cross-validate a recipe: train on all folds but one, for each, and score the one that is left out."""

from __future__ import annotations

from typing import Any

from hubtune.callbacks import Callbacks
from hubtune.contract import registry
from hubtune.data.files import locations
from hubtune.devices import processes
from hubtune.errors import RecipeError
from hubtune.evaluation import metrics
from hubtune.recipe import Recipe
from hubtune.sweeps import report
from hubtune.sweeps.trainer import Trainer
from hubtune.sweeps.trials import Trial


class Announced:
    """Says the score of each fold; a single trial is not stopped."""

    method = "folds"

    def __init__(self, callbacks: Callbacks, metric: str) -> None:
        self.callbacks, self.metric = callbacks, metric

    def ask(self) -> Trial | None:
        return None

    def report(self, trial: Trial, score: float) -> None:
        self.callbacks.on_info(f"fold {len(trial.folds)}: {self.metric} {trial.folds[-1]:.4f} (mean {score:.4f})")

    def tell(self, trial: Trial) -> None:
        pass

    def trials(self) -> list[Trial]:
        return []


def cross_validate(recipe: Recipe, source: Any, callbacks: Callbacks | None) -> dict[str, Any]:
    """Train and score each fold, and return the entry of `run.json`: `cross_validation`, with mean and spread."""
    if processes.world_size() > 1:
        raise RecipeError("data.folds trains in one process, and a launcher started several.",
                          hint="Start hubtune train without the launcher, or leave data.folds out.")
    if locations.is_stdin(recipe.data.source):
        raise RecipeError("data.folds reads the rows several times, which standard input does not allow.",
                          hint="Save the rows to a file, and give that: --data FILE")
    callbacks = callbacks or Callbacks()
    strategy = registry.load().strategy(recipe.strategy)
    trainer = Trainer(recipe, source, {strategy.name: type(strategy)}, ())
    trial = Trial(0, recipe.model, strategy.name)
    try:
        prepared, _ = trainer.prepare(trial)
        metric = metrics.deciding(prepared.task, prepared.base).name
        callbacks.on_info(f"Cross-validating on {recipe.data.folds} folds of train, before the training on all of it")
        trainer.train(trial, Announced(callbacks, metric), prepared, metric)
    finally:
        trainer.scratch.remove()
    callbacks.on_info(f"cross-validation: {metric} {trial.score:.4f} over {len(trial.folds)} folds, "
                      f"standard deviation {trial.spread:.4f}")
    return report.cross_validation(trial, metric)
