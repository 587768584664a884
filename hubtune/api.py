"""The Python API, which the command line uses too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hubtune import guest, hub, recipe, record
from hubtune.callbacks import Callbacks, or_default
from hubtune.contract import registry
from hubtune.errors import RecipeError
from hubtune.hub.trust import TrustCode, as_names
from hubtune.recipe import Recipe
from hubtune.runs import predictor, run
from hubtune.runs.predictor import Model
from hubtune.runs.reports.data_report import report_data
from hubtune.runs.reports.model_description import describe_model
from hubtune.runs.run import Run

Sets = Mapping[str, Any] | Iterable[str]


def make_recipe(
    task: str | None, model: str | Path | None, data: Any, strategy: str | None, set: Sets,
    push: str | None, public: bool, pr: bool, replace: bool, recipe_file: str | Path | None,
    trust_code: TrustCode = None,
) -> tuple[Recipe, Any]:
    """Build a recipe from arguments, over a recipe file if given; also return Python rows."""
    source = None if data is None or isinstance(data, str | Path) else data
    tables: dict[str, dict[str, Any]] = {}
    if recipe_file is not None:
        tables = recipe.read(Path(recipe_file)).as_dict()
    named: dict[str, dict[str, Any]] = {
        "task": {"name": task}, "model": {"id": None if model is None else str(model)},
        "strategy": {"name": strategy},
        "data": {"source": str(data) if data is not None and source is None else None},
        "publish": {"repo": push, "public": public or None, "pr": pr or None,
                    "replace": replace or None},
    }
    for table, values in named.items():
        given = {key: value for key, value in values.items() if value is not None}
        tables.setdefault(table, {}).update(given)
    if isinstance(set, Mapping):
        for key, value in set.items():
            table, _, name = key.partition(".")
            tables.setdefault(table, {})[name] = value
    else:
        tables = recipe.override(tables, set)
    made = recipe.build(tables)
    return dataclasses.replace(made, model=hub.repository_id(made.model), trusted=as_names(trust_code)), source


@guest.exclusive_training
def train(
    task: str | None = None, *, model: str | Path | None = None, data: Any = None,
    strategy: str | None = None, set: Sets = (), out: str | Path | None = None,
    overwrite: bool = False, push: str | None = None, public: bool = False, pr: bool = False,
    replace: bool = False, recipe: str | Path | None = None, trust_code: TrustCode = None,
    callbacks: Callbacks | None = None,
) -> Run:
    """Tune a pretrained model and return the finished run.

    Args:
        task, strategy: registered names.
        model: a folder, or `org/name[@revision]`.
        data: a file, a folder, a Hub data set `org/name[:config][@revision]`, or rows (a list of
            dicts, a `datasets` object, or these by split).
        set: `{"train.learning_rate": 3e-5}` or `["train.learning_rate=3e-5"]`.
        out: the run's folder; without it, a new one in `runs/`.
        overwrite: replace a run in `out`.
        push: a repository to publish to. public, pr, replace: see `hubtune publish`.
        recipe: a TOML file with any of these; arguments take precedence.
        trust_code: `REPO@COMMIT` or the folder of the model, if the code beside its weights may run.

    Raises:
        HubtuneError: a subclass, for errors that the caller can fix.
    """
    made, source = make_recipe(task, model, data, strategy, set, push, public, pr, replace, recipe, trust_code)
    known = None
    if made.data.folds is not None and made.data.fold is None:
        from hubtune.sweeps import folds

        record.clear_folder(record.choose_folder(made, out), overwrite, look_only=True)
        known = folds.cross_validate(made, source, callbacks)
    return run.train(made, out=out, overwrite=overwrite, source=source, callbacks=callbacks, known=known)


@guest.preserve_state
def check(
    task: str | None = None, *, model: str | Path | None = None, data: Any = None,
    strategy: str | None = None, set: Sets = (), out: str | Path | None = None,
    overwrite: bool = False, push: str | None = None, public: bool = False, pr: bool = False,
    replace: bool = False, recipe: str | Path | None = None, trust_code: TrustCode = None,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Check data, model and permissions as `train` does, without weights; return the plan."""
    made, source = make_recipe(task, model, data, strategy, set, push, public, pr, replace, recipe, trust_code)
    return run.check(made, out=out, overwrite=overwrite, source=source, callbacks=callbacks)


@guest.preserve_state
def data_report(
    task: str | None = None, *, data: Any = None, model: str | Path | None = None,
    strategy: str | None = None, set: Sets = (), recipe: str | Path | None = None,
    trust_code: TrustCode = None, label_errors: bool = False, callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Report everything that is found in the data: `refused`, `findings`, `labels` and more.

    Args:
        model: also open it, for the lengths of the rows and all else that `train` checks; none: no
            model is needed. Other arguments are as for `train`.
        label_errors: also find likely wrong labels, from the model's features or else from the texts;
            needs the extra `labels`.

    Raises:
        HubtuneError: the rows cannot be read. What is wrong with them is in the report.
    """
    model = "" if model is None and recipe is None else model
    made, source = make_recipe(task, model, data, strategy, set, None, False, False, False, recipe, trust_code)
    return report_data(made, source, callbacks, label_errors=label_errors).as_json()


@guest.exclusive_training
def plan(
    task: str | None = None, *, model: str | Path | None = None, data: Any = None,
    strategy: str | None = None, set: Sets = (), out: str | Path | None = None,
    overwrite: bool = False, push: str | None = None, public: bool = False, pr: bool = False,
    replace: bool = False, recipe: str | Path | None = None, trust_code: TrustCode = None,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Estimate the cost of `train` from a few steps: seconds, bytes of memory, disk and upload."""
    made, source = make_recipe(task, model, data, strategy, set, push, public, pr, replace, recipe, trust_code)
    return run.plan(made, out=out, overwrite=overwrite, source=source, callbacks=callbacks)


@guest.exclusive_training
def sweep(
    task: str | None = None, *, models: Iterable[str | Path] = (), data: Any = None,
    strategies: Iterable[str] = (), search: Mapping[str, Any] | Iterable[str] = (),
    trials: int | None = None, budget: str | float | None = None, price: float | None = None, set: Sets = (),
    out: str | Path | None = None, storage: str | None = None, sampler: str = "tpe",
    recipe: str | Path | None = None, trust_code: TrustCode = None,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Search settings, strategies and models on the validation rows, and train the best as a run.

    With none of `search`, `trials`, `budget` and `storage`, each strategy is trained once on each
    model at default settings. A search needs the extra `sweep`.

    Args:
        models, strategies: to choose among; without strategies, full, lora and head.
        search: ranges over those of the plugins' options: `{"train.learning_rate": (1e-5, 1e-3, "log"),
            "strategy.rank": [4, 8]}`, or as `--search` takes them.
        trials: how many, in all.
        budget: of time, such as `"30m"`, or of money, such as `"2usd"`; a number is seconds. The
            winner's training is part of it.
        price: of an hour of this machine, for a budget of money.
        set: settings of all trials, which are not searched.
        out: the folder; a sweep in it goes on.
        storage: the URL of a database that keeps the study, in place of a file in the folder.
        sampler: `tpe`, or `random`.
        Others: as for `train`.

    Returns:
        What `sweep.json` holds: `trials`, `best`, its `scores`, the `run` and the `command` that
        trains it.
    """
    from hubtune.sweeps import budget as budgets
    from hubtune.sweeps import space
    from hubtune.sweeps import sweep as sweeps

    names = [str(model) for model in models]
    made, source = make_recipe(task, names[0] if names else None, data, None, set, None, False, False, False,
                               recipe, trust_code)
    limit = budgets.Budget(None if budget is None else budgets.seconds_of(budget, price), trials)
    if budget is None and price is not None:
        raise RecipeError("a price without a budget limits nothing.", hint=f"For example: --budget 2usd --price {price:g}")
    fixed = set if isinstance(set, Mapping) else [item.partition("=")[0].strip() for item in set]
    request = sweeps.Request(
        made, [hub.repository_id(name) for name in names] or [made.model],
        list(strategies) or sweeps.default_strategies(), space.as_texts(search), list(fixed), limit, storage,
        sampler)
    return sweeps.sweep(request, out=out, source=source, callbacks=callbacks)


@guest.exclusive_training
def resume(
    folder: str | Path, *, data: Any = None, trust_code: TrustCode = None,
    callbacks: Callbacks | None = None,
) -> Run:
    """Resume a run that stopped.

    Args:
        data: only for a run whose rows came from memory.
        trust_code: as for `train`.
    """
    return run.resume(folder, source=data, trusted=as_names(trust_code), callbacks=callbacks)


@guest.preserve_state
def load(
    model: str | Path, *, task: str | None = None, trust_code: TrustCode = None
) -> Model:
    """Load a run, a model folder, or a model of the Hub, to predict and evaluate.

    Args:
        task: predicted by the model, where its files do not say which.
        trust_code: `REPO@COMMIT` or the folder whose code may run, for a model that needs it.
    """
    if (Path(model).expanduser() / "run.json").is_file():
        return Run(Path(model).expanduser(), trust_code=trust_code)
    return predictor.load(model, task=task, trust_code=trust_code)


@guest.preserve_state
def verify(
    model: str | Path, *, trust_code: TrustCode = None, callbacks: Callbacks | None = None
) -> dict[str, Any]:
    """Verify that a run, a folder or a model of the Hub is what its training saved.

    Its files are compared with the hashes that were sealed when training ended, and its answers in
    a process without hubtune with those of the trained model.

    Args:
        trust_code: `REPO@COMMIT` or the folder whose code may run, for a model that needs it.

    Raises:
        SealError, ProofError: it is not.
    """
    from hubtune.runs.proofs import verify as verification

    return verification.verify(str(model), or_default(callbacks), trust_code)


@guest.preserve_state
def compare(
    runs: Iterable[str | Path], *, data: Any = None, trust_code: TrustCode = None,
    callbacks: Callbacks | None = None,
) -> list[dict[str, Any]]:
    """Compare finished runs with the first of them, on the same held-out rows.

    Args:
        runs: folders.
        data: the runs' rows, where they came from memory.
        trust_code: the folders of the runs whose code may run, for models that need it.

    Returns:
        For each run but the first: the paired difference of the metric with its 95% interval, the
        verdict, and which rows only one of the two answers better.
    """
    from hubtune.runs.reports.comparison import compare_runs

    opened = [Run(folder, trust_code=trust_code) for folder in runs]
    return compare_runs(opened, data, or_default(callbacks))


def write_report(run: str | Path, *, rows: bool = True) -> Path:
    """Write the page of a finished run, `report.html`, anew from its folder; returns its path.

    Args:
        run: folder.
        rows: show the rows that the run kept with their texts; false: figures alone.
    """
    from hubtune.runs.page import page

    folder = Path(run)
    return page.write(folder, record.read_finished(folder), with_rows=rows)


def write_comparison(found: Mapping[str, Any], file: str | Path) -> Path:
    """Write a page of runs beside each other, with overlaid curves and paired differences; returns its path.

    Args:
        found: what `hubtune compare --json` prints.
        file: the page, such as `compare.html`.
    """
    from hubtune.runs.page import comparison_page

    return comparison_page.write(Path(file), found)


@guest.preserve_state
def export(
    model: str | Path, *, format: str = "onnx", out: str | Path | None = None, int8: bool = False,
    data: Any = None, push: bool = False, task: str | None = None, trust_code: TrustCode = None,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Export a run, a folder or a model of the Hub to a format that runs elsewhere, and prove the file.

    Args:
        format: name of an exporter, such as `onnx`.
        out: folder; none: `RUN/FORMAT`, or `NAME-FORMAT` in the working folder.
        int8: also write a file with int8 weights, and measure what it costs of the score.
        data: labelled rows for that; none: those that a run held out.
        push: publish the files beside the weights on the Hub, on the very commit that was exported.

    Returns:
        What `export.json` holds, with `out` and `published`.

    Raises:
        ProofError: the file's outputs differ from the trained model's; nothing is kept.
    """
    from hubtune.runs.exports import export as exports

    return exports.export(load(model, task=task, trust_code=trust_code), format, out, int8, data, push, or_default(callbacks))


@guest.exclusive_training
def reproduce(
    model: str | Path, *, data: Any = None, out: str | Path | None = None,
    trust_code: TrustCode = None, callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Train again from the record of a run, a folder or a model of the Hub, and compare.

    Args:
        data: where the record's data is, if it cannot be fetched; it must have the same rows.
        out: the new run's folder; without it, a new one in `runs/`.
        trust_code: as for `train`.

    Returns:
        `equal`, the new `run`, and what differs: `versions`, `weights` and `metrics`.
    """
    from hubtune.runs.proofs import reproduce as reproduction

    return reproduction.reproduce(
        str(model), data, out, as_names(trust_code), or_default(callbacks))


@guest.preserve_state
def search(words: str, *, task: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
    """Search models of the Hub by name, most downloaded first. task: a task or a pipeline tag."""
    known = registry.load().tasks
    return hub.search(words, known[task].pipeline_tag if task in known else task, limit)


@guest.preserve_state
def show(model: str | Path) -> dict[str, Any]:
    """Describe a model, without weights: its facts, and the tasks and strategies that fit it.

    `memory` has the bytes of its weights in fp32: to predict with, to train all of them (with gradients
    and both moments of AdamW), and to train little beside frozen ones; activations come on top. For a
    run: its settings, expectations and results.
    """
    if (Path(model).expanduser() / "run.json").is_file():
        return record.summarize(Path(model).expanduser())
    return describe_model(str(model))
