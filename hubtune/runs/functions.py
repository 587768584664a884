"""The loss and the metrics that a recipe chooses: given to the task, and recorded with what a resumed run needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hubtune.contract import Base, ClassificationTask, LossFunction, Metric, MetricFunction, Strategy, Task
from hubtune.contract.registry import Registry
from hubtune.contract.validation import checked
from hubtune.errors import RecipeError, did_you_mean, listing
from hubtune.recipe import Recipe


def choose(plugins: Registry, task: Task[Any], recipe: Recipe, came: Mapping[str, Any]) -> None:
    """Set the task's loss and metrics as the recipe says, before any row is read.

    came: of a run that is resumed, the plugins that its record names.

    Raises:
        RecipeError: the task takes no loss or metric, or no metric of that name decides.
        UnknownPlugin: there is no loss or metric of that name.
    """
    best = recipe.train.metric_for_best_model
    names = list(recipe.train.metrics)
    if best in plugins.metrics and best not in names:
        names.append(best)
    if recipe.loss or names or best:
        refuse_other_tasks(plugins, task, "loss.name" if recipe.loss else
                           "train.metrics" if recipe.train.metrics else "train.metric_for_best_model")
    if isinstance(task, ClassificationTask):
        if recipe.loss:
            task.loss_function = plugins.loss(recipe.loss, came.get("loss"))
        task.metric_functions = tuple(plugins.metric(name, came.get("metrics", {}).get(name)) for name in names)
        task.best_metric = best_of(task, best) if best else None


def refuse_other_tasks(plugins: Registry, task: Task[Any], key: str) -> None:
    """Refuse a loss or metrics for a task that does not classify."""
    if not isinstance(task, ClassificationTask):
        able = sorted(name for name, kind in plugins.tasks.items() if issubclass(kind, ClassificationTask))
        raise RecipeError(f"'{task.name}' has a loss and metrics of its own: {key} is for {listing(able, 20)}.",
                          hint=f"Leave {key} out.")


def best_of(task: ClassificationTask[Any], name: str) -> Metric:
    """Return the deciding metric by its name: one of the chosen metrics, or the one that the task has anyway."""
    for function in task.metric_functions:
        if function.name == name:
            return Metric(name, function.higher_is_better)
    if name == task.metric.name:
        return task.metric
    known = [*(function.name for function in task.metric_functions), task.metric.name]
    own = f"\nFor another metric of the task itself: --set task.metric={name}" if hasattr(task.options, "metric") else ""
    raise RecipeError(f"train.metric_for_best_model is one of {listing(known)}, not {name!r}.{did_you_mean(name, known)}",
                      hint=f"Further metrics are named in train.metrics; see which there are with: hubtune metrics{own}")


def choose_metrics(plugins: Registry, task: Task[Any], came: Mapping[str, Any]) -> None:
    """Set the metrics that a tuned model was scored by. came: the plugin of each, by its name."""
    if isinstance(task, ClassificationTask):
        task.metric_functions = tuple(plugins.metric(name, one) for name, one in came.items())


def fit(
    task: Task[Any], dataset_info: Mapping[str, Any], base: Base, before: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Let the chosen loss compute what it needs of the training data; in a resumed run, take what its record has.

    before: the record of the run that goes on. Returns what `run.json` says of the loss; None where none is chosen.
    """
    if not isinstance(task, ClassificationTask):
        return None
    kind = checked(task, "label_kind", task.label_kind())
    for function in (task.loss_function, *task.metric_functions):
        if function is not None:
            refuse_kind(function, kind)
    loss = task.loss_function
    if loss is None:
        return None
    if before and before.get("loss"):
        found = dict(before["loss"])
    else:
        counts = checked(task, "label_counts", task.label_counts(dataset_info, base))
        fitted = json.loads(json.dumps(checked(loss, "fit", loss.fit(kind, counts))))
        found = {"name": loss.name, "summary": loss.summary, "paper": loss.paper, "fitted": fitted}
    loss.restore(found["fitted"])
    return found


def refuse_kind(function: LossFunction[Any] | MetricFunction[Any], kind: str) -> None:
    """Refuse a loss or a metric for labels that it does not take."""
    if kind not in function.kinds:
        what = "loss" if isinstance(function, LossFunction) else "metric"
        raise RecipeError(f"the {what} '{function.name}' is for {listing(function.kinds)} labels; these are {kind}.",
                          hint=f"See which there are with: hubtune {'losses' if what == 'loss' else 'metrics'}")


def origins(plugins: Registry, task: Task[Any], strategy: Strategy[Any]) -> dict[str, Any]:
    """Return which plugin of which distribution each came from, for `run.json`."""
    found: dict[str, Any] = {"task": plugins.came_from(type(task)), "strategy": plugins.came_from(type(strategy)), "metrics": {}}
    if isinstance(task, ClassificationTask):
        if task.loss_function is not None:
            found["loss"] = plugins.came_from(type(task.loss_function))
        found["metrics"] = {one.name: plugins.came_from(type(one)) for one in task.metric_functions}
    return found
