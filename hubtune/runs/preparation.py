"""Prepare a run: find all that can be wrong before any compute is spent, and encode the rows."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hubtune import defaults, environment, hub
from hubtune.callbacks import Callbacks, RecordingCallbacks
from hubtune.contract import Base, ContrastiveTask, Strategy, Task, registry
from hubtune.contract.validation import checked
from hubtune.data.checks.examine import Examined
from hubtune.data.checks.findings import Finding
from hubtune.devices import device, processes
from hubtune.errors import MissingExtra, RecipeError, ResumeError
from hubtune.evaluation import metrics
from hubtune.hub import adapters, card, trust
from hubtune.hub.forms import check_form, require_loadable
from hubtune.hub.headers import read_headers
from hubtune.hub.origin import Origin, fetch, locate
from hubtune.models import bases, bounds, completeness, configuration, loading, saving, vocabulary
from hubtune.models.foreign import processor_errors
from hubtune.models.heads import choice
from hubtune.recipe import ModelConfig, Recipe, TrainConfig
from hubtune.runs import functions
from hubtune.runs.prepared_data import Encodings, PreparedData, Record, encode_once, load_data
from hubtune.training import optimizers
from hubtune.training.schedule import count_steps

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, but the weights.

    origin: the model's files. shard: each process holds a part of the weights. num_embeddings: rows
    to which the embedding of tokens is enlarged. dtype: of the published weights; None: fp32.
    """

    task: Task[Any]
    strategy: Strategy[Any]
    base: Base
    origin: Origin
    data: PreparedData
    settings: TrainConfig
    num_parameters: int
    shard: bool = False
    num_embeddings: int | None = None
    dtype: str | None = None


def prepare(
    recipe: Recipe, callbacks: Callbacks, source: Any = None, resumed: Record | None = None,
    examined: Examined | None = None, data_loaded: Callable[[], None] = lambda: None, encodings: Encodings | None = None,
) -> tuple[Prepared, dict[str, Any]]:
    """Check recipe, data, model and permissions, and encode the rows.

    Args:
        source: rows from Python, instead of the recipe's.
        resumed: the record of the run that is resumed, whose pins are kept.
        examined: the rows, where they have been examined already.
        data_loaded: called when the rows are right, before libraries are imported for the model.
        encodings: encoded rows of earlier calls with the same data, which are taken and kept.

    Returns:
        What training needs, and the part of `run.json` that is known before step 0.
    """
    callbacks = recorder = RecordingCallbacks(callbacks)
    environment.check()
    plugins = registry.load()
    task, strategy = choose_plugins(plugins, recipe, resumed)
    shard = check_settings(recipe.train, strategy, resumed, callbacks)
    if examined is None:
        callbacks.on_info(f"Reading {recipe.data.source if source is None else 'rows'}")
    splits, dataset_info = load_data(recipe, task, source, resumed, callbacks, examined)
    data_loaded()
    if recipe.publish.repo:
        hub.check_push(recipe.publish.repo, recipe.publish.pr)
    origin = locate_base(recipe, resumed)
    bases.check_published_base(origin, strategy)
    import_libraries(callbacks)
    callbacks.on_info(f"Opening {origin.repo}")
    notes: list[str] = []
    task, base, config = open_base(origin, task, strategy, dataset_info, recipe.model_config, notes.append)
    for note in notes:
        callbacks.on_info(note)
        splits.checks["findings"].append(Finding("base-labels", "info", note).as_json())
    loss = functions.fit(task, dataset_info, base, resumed)
    head = report_model(origin, task, base, callbacks)
    model = loading.meta_model(base, task)
    check_weights(origin, model, strategy, callbacks)
    if shard:
        check_shardable(strategy, model)
    dtype = published_dtype(recipe, strategy, origin, shard)
    base = replace(base, max_length=max_length(base, model, task, strategy))
    num_parameters, rows = count_parameters(model), len(splits.splits["train"])
    settings = resolve_settings(recipe, task, strategy, model, rows, resumed)
    with processor_errors(origin.repo):
        data, lengths = encode_once(encodings, task, splits, base, recipe, settings, callbacks)
    num_embeddings = check_tokens(base, model, strategy, data, recipe.model_config, callbacks)
    steps_per_epoch, steps = count_steps(settings, rows)
    return Prepared(
        task, strategy, base, origin, data, settings, num_parameters, shard, num_embeddings, dtype), {
        "recipe": recipe.as_dict(), "published_dtype": dtype or "float32", **describe_plugins(plugins, task, strategy, base),
        "loss": loss, "base": origin.as_record(), "data": splits.as_record(),
        "facts": dataset_info, "config": config, "head": head,
        "usage": strategy.usage(task, card.PLACE, base), "settings": dict(vars(settings)),
        "lengths": lengths, "plan": {"steps_an_epoch": steps_per_epoch, "steps": steps},
        "parameters": {"total": num_parameters}, "warnings": recorder.warnings,
    }


def import_libraries(callbacks: Callbacks) -> None:
    """Import what models need, which takes seconds, and say so before each."""
    for name, module in (("torch", "torch"), ("transformers", "transformers.modeling_utils")):
        if module not in sys.modules:
            callbacks.on_info(f"Importing {name}")
            importlib.import_module(module)


def choose_plugins(
    plugins: registry.Registry, recipe: Recipe, resumed: Record | None
) -> tuple[Task[Any], Strategy[Any]]:
    """Return the recipe's task, with loss and metrics, and strategy; pinned if resumed."""
    pins = resumed["plugins"] if resumed else {}
    task = plugins.task(recipe.task, pins.get("task"))
    functions.choose(plugins, task, recipe, pins)
    return task, plugins.strategy(recipe.strategy, pins.get("strategy"))


def describe_plugins(
    plugins: registry.Registry, task: Task[Any], strategy: Strategy[Any], base: Base
) -> dict[str, Any]:
    """Describe task, strategy and the distributions they come from, for `run.json`.

    A resume without these distributions says what to install.
    """
    return {
        "task": {
            "name": task.name, "summary": task.summary, "pipeline_tag": task.pipeline_tag,
            "model": task.model, "metric": metrics.deciding(task, base).name,
        },
        "strategy": {
            "name": strategy.name, "summary": strategy.summary, "paper": strategy.paper,
        },
        "plugins": functions.origins(plugins, task, strategy),
    }


# ---------------------------------------------------------------------------------- settings


def check_settings(
    train: TrainConfig, strategy: Strategy[Any], resumed: Record | None, callbacks: Callbacks
) -> bool:
    """Refuse what machine, strategy or launcher cannot do; returns whether weights are sharded."""
    check_tracker(train.report_to)
    optimizers.check_available(train.optimizer, strategy)
    if train.plan and not resumed:
        device.load_plan(train.plan, train.precision)
    processes.check_launcher()
    shard = processes.use_fsdp(train.fsdp)
    if error := processes.single_process_error(train.fsdp):
        # Only a warning: `train` refuses it, but a check, a plan or a resume may be alone.
        callbacks.on_warning(error.message)
    return shard


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that is not installed."""
    import importlib.util

    if name and importlib.util.find_spec(name) is None:
        raise MissingExtra(f"train.report_to={name} needs the package {name}.",
                           hint=f"Install it with: pip install {name}")


def resolve_settings(
    recipe: Recipe, task: Task[Any], strategy: Strategy[Any], model: Module, rows: int,
    resumed: Record | None,
) -> TrainConfig:
    """Fill in the defaults of the strategy and of the data's size; a resumed run keeps its own."""
    if resumed:
        return TrainConfig(**resumed["settings"])
    train = defaults.without_choice(recipe.train) if recipe.data.folds else recipe.train
    return defaults.resolve(
        train, strategy.defaults, rows, count_parameters(model),
        still=train.batch_norm == "frozen" and loading.has_batch_norms(model),
        additive=not isinstance(task, ContrastiveTask),
    )


# ------------------------------------------------------------------------------------- model


def locate_base(recipe: Recipe, resumed: Record | None) -> Origin:
    """Locate the base model, at the commit that the resumed run began with; its code may run if trusted.

    Raises:
        ResumeError: the files of a local model have changed.
    """
    pinned = resumed["base"] if resumed else None
    source = pinned.get("adapter", pinned) if pinned else None
    given = locate(recipe.model, source["commit"] if source and not source["local"] else None)
    origin = adapters.over_base(given, pinned["commit"] if pinned and not pinned["local"] else None)
    origin = trust.base_with_code(origin, recipe.trusted, recipe.model_config.library_class)
    if pinned and source and (origin.commit, given.commit) != (pinned["commit"], source["commit"]):
        raise ResumeError("the base model's files have changed since the run began.",
                          hint="Put the old files back to go on, or train anew with --overwrite.")
    return origin


def open_base(
    origin: Origin, task: Task[Any], strategy: Strategy[Any], dataset_info: Mapping[str, Any],
    settings: ModelConfig, say: Callable[[str], None] = lambda text: None,
) -> tuple[Task[Any], Base, dict[str, Any]]:
    """Open configuration and processor, with the task's settings applied; returns the task for this model and these too.

    say: gets a sentence on what becomes of a head that the model has for this task.

    Raises:
        ModelError: task, strategy and model do not fit together.
    """
    require_loadable(origin)
    check_form(configuration.read_config(fetch(origin, origin.small), origin), origin)
    bases.check_needs_no_code(origin)
    task = configuration.task_for_model(origin, task)
    base = configuration.open_base(origin, task)
    trust.check_library_class(origin, choice.pretrained_config(base.config).model_type, settings.library_class)
    configuration.check_fit(origin, base, task, strategy)
    own = configuration.trained_labels(base.config, task)
    setup = checked(task, "model_config", task.model_config(dataset_info, base))
    labels = list(setup.config.get("id2label", {}).values())
    if note := configuration.describe_head(own, dataset_info.get("labels", ()), labels):
        say(note)
    return task, configuration.apply_setup(base, setup), dict(setup.config)


def report_model(
    origin: Origin, task: Task[Any], base: Base, callbacks: Callbacks
) -> str | None:
    """Report the base model, and a head of hubtune's own on it, which is returned."""
    model_type = choice.pretrained_config(base.config).model_type
    callbacks.on_info(f"model: {origin.repo} at {origin.commit[:19]} ({model_type})")
    if origin.adapter is not None:
        callbacks.on_info(f"adapter: {origin.adapter.repo} at {origin.adapter.commit[:19]}, merged into it")
    head = choice.describe(task.model, base.config)
    if head:
        kind = task.model.removeprefix("AutoModelFor")
        callbacks.on_info(f"head: {head}, since transformers has no {kind} class for '{model_type}' models")
    return head


def check_weights(
    origin: Origin, model: Module, strategy: Strategy[Any], callbacks: Callbacks
) -> None:
    """Refuse weights that are too large, or lack a part of the model: nothing is fetched yet."""
    bounds.check_memory(
        origin.repo, model, "quantization_config" in strategy.from_pretrained_kwargs())
    report = completeness.load_on_meta(model, read_headers(origin))
    if report is not None:
        completeness.check_completeness(origin, model, report, callbacks.on_warning)


def check_tokens(
    base: Base, model: Module, strategy: Strategy[Any], data: PreparedData, settings: ModelConfig,
    callbacks: Callbacks,
) -> int | None:
    """Refuse tokens that the model has no row for; returns the rows that it is to be enlarged to.

    Raises:
        ModelError: there are such tokens, or the rows are unknown words.
        RecipeError: the strategy is published as an adapter, whose base is not enlarged.
    """
    vocabulary.check_known(base, data.encoded, callbacks.on_warning)
    rows = vocabulary.check_embedding(
        base, model, data.encoded, data.row_numbers, settings.resize_embeddings,
        callbacks.on_warning)
    if rows is not None and strategy.loads_with == "peft":
        raise RecipeError(
            f"'{strategy.name}' is published as an adapter over the base model, whose embedding "
            "would not be enlarged there.",
            hint="Choose a strategy that is published as a whole model: --strategy lora")
    if rows is not None:
        callbacks.on_info(f"embedding: enlarged to {rows:,} rows; new ones begin at the mean of the "
                          "others, and are learnt where the strategy trains the embedding")
    return rows


def check_shardable(strategy: Strategy[Any], model: Module) -> None:
    """Refuse what cannot be trained in shards, before weights are fetched."""
    from hubtune.devices import sharding  # it imports torch, which others need not wait for

    modules = tuple(model.modules())
    if reason := sharding.strategy_refusal(strategy) or sharding.model_refusal(model, modules):
        raise RecipeError(f"the weights cannot be sharded: {reason}.",
                          hint="Train with whole weights in each process: --set train.fsdp=off")


def published_dtype(recipe: Recipe, strategy: Strategy[Any], origin: Origin, shard: bool) -> str | None:
    """Return the number format of the published weights; None for fp32.

    Raises:
        RecipeError: they cannot be rounded before they are scored.
    """
    dtype = saving.dtype_of(recipe.publish.dtype, origin)
    if dtype and (shard or strategy.loads_with == "peft"):
        reason = "the weights are sharded (train.fsdp)" if shard else f"'{strategy.name}' is published as an adapter, in float32"
        raise RecipeError(f"publish.dtype={recipe.publish.dtype} is for whole models in one piece, and {reason}.",
                          hint="Leave it out: --set publish.dtype=float32")
    return dtype


def count_parameters(model: Module) -> int:
    """Return the number of all weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def max_length(
    base: Base, model: Module, task: Task[Any], strategy: Strategy[Any]
) -> int | None:
    """Return the most tokens of a text: positions of the model that the strategy leaves free."""
    limit = configuration.length_limit(base, model) if task.unit == "tokens" else None
    return limit and max(1, limit - strategy.num_virtual_tokens())
