"""Train one trial on the training rows and score it on the validation rows; test rows are left out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hubtune import guest, temporary
from hubtune.callbacks import Callbacks
from hubtune.contract import Strategy
from hubtune.options import fill
from hubtune.recipe import PluginChoice, Recipe, TrainConfig, check_ranges
from hubtune.runs import preparation
from hubtune.runs.preparation import Prepared
from hubtune.runs.prepared_data import Encodings
from hubtune.sweeps.space import Range
from hubtune.sweeps.trials import Study, Trial
from hubtune.training.schedule import count_steps

if TYPE_CHECKING:
    from hubtune.devices.device import Compute

OPEN_IN_PREPARATION = {name: getattr(TrainConfig(), name) for name in (
    "learning_rate", "epochs", "max_steps", "batch_size", "weight_decay", "warmup", "schedule", "max_grad_norm")}
"""Settings that change nothing in what is prepared, with their defaults."""
MOST_PREPARED = 8
"""Preparations that are kept, of each fold; they share their encoded rows."""


class Curve(Callbacks):
    """Follow the validations of a training of a trial, and stop it where the study says so.

    study: none, where the trial is told about after each fold.
    """

    def __init__(self, trial: Trial, study: Study | None, metric: str) -> None:
        self.trial, self.study, self.key = trial, study, f"validation_{metric}"
        self.best, self.last, self.epochs = 0.0, 0.0, trial.epochs

    def on_evaluate(self, record: dict[str, Any], best: bool) -> None:
        self.last = float(record[self.key])
        if best:
            self.best = self.last
        self.trial.epochs = round(self.epochs + record["epoch"], 4)
        if self.study is not None:
            tell(self.trial, self.study, self.last)


def tell(trial: Trial, study: Study, score: float) -> None:
    """Add a score to the curve of a trial. Raises Pruned where the study stops it."""
    trial.curve.append(round(score, 6))
    study.report(trial, score)


@dataclass
class Trainer:
    """What the trials of a process share: encoded rows, features of frozen backbones, and the way to compute.

    Attributes:
        recipe: what trials have in common.
        fixed: keys that the user has set.
    """

    recipe: Recipe
    source: Any
    strategies: Mapping[str, type[Strategy[Any]]]
    ranges: Sequence[Range]
    scratch: temporary.Folder = field(default_factory=temporary.Folder)
    prepared: dict[str, tuple[Prepared, dict[str, Any]]] = field(default_factory=dict)
    encodings: Encodings = field(default_factory=dict)
    computes: dict[str, Compute] = field(default_factory=dict)

    @property
    def folds(self) -> int:
        """How many trainings a trial is."""
        data = self.recipe.data
        return 1 if data.folds is None or data.fold is not None else data.folds

    def recipe_of(self, trial: Trial) -> Recipe:
        """Return the recipe of a trial; of settings within `RELATIVE` ranges once they are known."""
        values = {key: value for key, value in self.values(trial).items() if key not in self.relative}
        return apply(self.recipe, trial, {**values, **trial.settings}, self.strategies)

    @property
    def relative(self) -> set[str]:
        """Keys whose values are multiples of the default."""
        return {one.key for one in self.ranges if one.relative}

    def values(self, trial: Trial) -> dict[str, Any]:
        """Return the proposed values by key."""
        keys = {one.name: one.key for one in self.ranges}
        return {keys[name]: value for name, value in trial.values.items()}

    def prepare(self, trial: Trial, fold: int = 0) -> tuple[Prepared, dict[str, Any]]:
        """Prepare a trial without its test rows, and set down its settings.

        Rows are read and encoded again only where fold, model, task or strategy ask for it.

        Returns:
            What training needs, and the part of `run.json` that is known before step 0.
        """
        recipe = self.recipe_of(trial)
        if self.folds > 1:
            recipe = replace(recipe, data=replace(recipe.data, fold=fold))
        bare = replace(recipe, train=fill_train({**vars(recipe.train), **OPEN_IN_PREPARATION}))
        key = repr(bare)
        if key not in self.prepared:
            found, record = preparation.prepare(bare, Callbacks(), self.source, encodings=self.encodings)
            data = replace(
                found.data, encoded={name: found.data.encoded[name] for name in ("train", "validation")},
                rows={"validation": found.data.rows["validation"]})
            if len(self.prepared) >= MOST_PREPARED * self.folds:
                del self.prepared[next(iter(self.prepared))]
            self.prepared[key] = (replace(found, data=data), record)
        prepared, record = self.prepared[key]
        settings = replace(prepared.settings, **given(recipe.train))
        if recipe.train.max_steps is not None:
            settings = replace(settings, epochs=None)
        elif recipe.train.epochs is not None:
            settings = replace(settings, max_steps=None)
        settings = self.scale(trial, settings)
        trial.settings = {key: value for key, value in self.values(trial).items() if key not in self.relative}
        for key in self.relative & set(self.values(trial)):
            value = getattr(settings, key.partition(".")[2])
            if value is not None:
                trial.settings[key] = value
        epoch_steps, steps = count_steps(settings, prepared.data.encoded["train"].rows)
        trial.planned_epochs = steps / epoch_steps * self.folds
        return replace(prepared, settings=settings), record

    def scale(self, trial: Trial, settings: TrainConfig) -> TrainConfig:
        """Multiply the defaults of settings within `RELATIVE` ranges."""
        for key, value in self.values(trial).items():
            name = key.partition(".")[2]
            default = getattr(settings, name) if key in self.relative else None
            if default is not None:
                scaled = float(f"{default * value:.2g}")
                known: Any = {name: max(1.0, round(scaled)) if name == "epochs" else scaled}
                settings = replace(settings, **known)
        return settings

    def train(self, trial: Trial, study: Study, prepared: Prepared, metric: str) -> None:
        """Train, on each fold if there are any, and set the score of the trial.

        prepared: of the first fold.

        Raises:
            Pruned: the study stopped it.
        """
        if self.folds == 1:
            trial.score = self.train_once(trial, prepared, Curve(trial, study, metric))
            return
        for fold in range(self.folds):
            prepared = self.prepare(trial, fold)[0] if fold else prepared
            trial.folds.append(self.train_once(trial, prepared, Curve(trial, None, metric)))
            if fold < self.folds - 1:
                tell(trial, study, fmean(trial.folds))
            else:  # at its end, nothing is spared
                trial.curve.append(round(fmean(trial.folds), 6))
        trial.score = round(fmean(trial.folds), 6)

    def train_once(self, trial: Trial, prepared: Prepared, callbacks: Curve) -> float:
        """Train, and return the score of the best validation, or of the last where `train.keep=last`."""
        from hubtune.devices import device
        from hubtune.runs import stages
        from hubtune.training import memory_search
        from hubtune.training.loop import Loop

        guest.save_library_states()
        key = f"{trial.model} {trial.strategy}"
        known = self.computes.get(key)
        compute = known or stages.choose_compute(prepared, {}, resume=False)
        with temporary.Folder() as folder, device.device_settings(compute):
            strategy = type(prepared.strategy)(prepared.strategy.options)  # without the state of another trial
            prepared, context = stages.load_model(
                folder, replace(prepared, strategy=strategy), compute, resume=known is not None)
            self.computes[key] = context.compute
            context = replace(context, resume=False, settings=replace(context.settings, keep="last"),
                              features=self.features(trial.model), checkpoints=False)
            with contextlib.closing(Loop(context, callbacks)) as loop:
                if not context.settings.plan:
                    memory_search.search(loop.state, loop.accumulation)
                loop.run()
        return round(callbacks.last if prepared.settings.keep == "last" else callbacks.best, 6)

    def features(self, model: str) -> Path:
        """Return the folder for features of a frozen backbone, which the trials of a model share."""
        from hashlib import sha256

        return self.scratch.path / sha256(model.encode()).hexdigest()[:16]


def fill_train(values: Mapping[str, Any]) -> TrainConfig:
    """Build the settings of `[train]`, checked."""
    return check_ranges(fill(TrainConfig, values, "train"), None)


def given(train: TrainConfig) -> dict[str, Any]:
    """Return the settings of a trial that preparation left open."""
    found = {name: getattr(train, name) for name in OPEN_IN_PREPARATION}
    return {name: value for name, value in found.items() if value is not None}


def apply(
    recipe: Recipe, trial: Trial, settings: Mapping[str, Any], strategies: Mapping[str, type[Strategy[Any]]]
) -> Recipe:
    """Return the recipe of a trial: its model, strategy and settings over those that all trials have."""
    tables: dict[str, dict[str, Any]] = {"train": {}, "task": {}, "strategy": {}, "loss": {}}
    for key, value in settings.items():
        table, _, name = key.partition(".")
        tables[table][name] = value
    known = {item.name for item in dataclasses.fields(strategies[trial.strategy].Options)}
    shared = {name: value for name, value in recipe.strategy.options.items() if name in known}
    loss = recipe.loss and PluginChoice(recipe.loss.name, {**recipe.loss.options, **tables["loss"]})
    return replace(
        recipe, model=trial.model, loss=loss,
        task=PluginChoice(recipe.task.name, {**recipe.task.options, **tables["task"]}),
        strategy=PluginChoice(trial.strategy, {**shared, **tables["strategy"]}),
        train=fill_train({**vars(recipe.train), **tables["train"]}),
    )
