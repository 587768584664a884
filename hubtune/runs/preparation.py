"""All that can be wrong is found here, before any compute is spent: plugins, rows, permission, model, lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hubtune import defaults, hub
from hubtune.callbacks import Callbacks, RecordingCallbacks
from hubtune.contract import Base, ContrastiveTask, ReferenceTask, Strategy, Task, registry
from hubtune.contract.validation import checked
from hubtune.data import encoding, splits
from hubtune.data.columns import with_added_columns
from hubtune.data.dataset import EncodedDataset
from hubtune.data.row_batches import BatchedRows
from hubtune.data.sources import DataSplits
from hubtune.data.streaming import Stream, StreamWindows
from hubtune.devices import device, processes
from hubtune.errors import MissingExtra, ModelError, RecipeError, ResumeError
from hubtune.hub import card
from hubtune.hub.origin import Origin, locate, read_run_record, require_safetensors
from hubtune.models import configuration, loading
from hubtune.recipe import Recipe, TrainConfig
from hubtune.training import optimizers
from hubtune.training.schedule import steps_in


@dataclass(frozen=True)
class Prepared:
    """A run with nothing left open: only the weights are still to be fetched."""

    recipe: Recipe
    task: Task[Any]
    strategy: Strategy[Any]
    plugins: dict[str, Any]
    data: DataSplits
    dataset_info: dict[str, Any]
    origin: Origin
    base: Base
    config: dict[str, Any]
    usage: str
    encoded: dict[str, EncodedDataset]
    lengths: dict[str, Any]
    settings: TrainConfig
    parameters: int
    warnings: list[str]
    windows: StreamWindows | None = None
    shard: bool = False

    def described(self) -> dict[str, Any]:
        """What goes into `run.json` before step 0: everything needed to run it again."""
        an_epoch, steps = steps_in(self.settings, len(self.data.splits["train"]))
        return {
            "recipe": self.recipe.as_dict(),
            "task": {
                "name": self.task.name, "summary": self.task.summary, "pipeline_tag": self.task.pipeline_tag,
                "model": self.task.model, "metric": self.task.select_metric(self.base).name,
            },
            "strategy": {
                "name": self.strategy.name, "summary": self.strategy.summary, "paper": self.strategy.paper,
            },
            "plugins": self.plugins, "base": self.origin.as_record(), "data": self.data.as_record(),
            "facts": self.dataset_info, "config": self.config, "usage": self.usage, "settings": dict(vars(self.settings)), "lengths": self.lengths,
            "plan": {"steps_an_epoch": an_epoch, "steps": steps}, "parameters": {"total": self.parameters},
            "warnings": self.warnings,
        }


def prepare(recipe: Recipe, callbacks: Callbacks, source: Any = None, before: Mapping[str, Any] | None = None) -> Prepared:
    """Check everything and encode the rows. `before`: the record of the run that goes on, whose pins are kept."""
    noted = RecordingCallbacks(callbacks)
    plugins = registry.load()
    came = before["plugins"] if before else {}
    task, strategy = plugins.task(recipe.task, came.get("task")), plugins.strategy(recipe.strategy, came.get("strategy"))
    refuse_settings(recipe.train, strategy, before)
    shard = processes.shards(recipe.train.fsdp)
    if alone := processes.nobody_to_share_with(recipe.train.fsdp):  # who only looks, or goes on with fewer processes, may be alone
        noted.on_warning(alone.message)
    data, dataset_info = inspected(recipe, task, source, before, noted)
    if recipe.publish.repo:
        hub.check_push(recipe.publish.repo, recipe.publish.pr)
    origin = located(recipe.model, before)
    base, config = opened(origin, task, strategy, dataset_info)
    noted.on_info(f"model: {origin.repo} at {origin.commit[:19]} ({base.config.model_type})")
    shape = loading.meta_model(base, task)
    if shard:
        refuse_unshardable(strategy, shape)
    limit = configuration.length_limit(base, shape) if task.unit == "tokens" else None
    limit = limit and max(1, limit - strategy.num_virtual_tokens())
    parameters = sum(parameter.numel() for parameter in shape.parameters())
    train = data.splits["train"]
    settings = TrainConfig(**before["settings"]) if before else defaults.settle(
        recipe.train, strategy.defaults, len(train), parameters,
        still=recipe.train.batch_norm == "frozen" and loading.has_batch_norms(shape), additive=not isinstance(task, ContrastiveTask),
    )
    size = window_of(train, recipe.data.buffer, settings.batch_size or 1, task, noted) if isinstance(train, Stream) else len(train)
    encoded, lengths, base = encode_splits(task, data, base, limit, recipe.train, noted, size)
    windows = StreamWindows(task, train, base, lengths["max_length"], size, (0, encoded["train"])) if isinstance(train, Stream) else None
    return Prepared(recipe, task, strategy, origins(plugins, task=task, strategy=strategy), data, dataset_info, origin, base, config,
                    strategy.usage(task, card.PLACE, base), encoded, lengths, settings, parameters, noted.warnings, windows, shard)


def origins(plugins: registry.Registry, **used: Task[Any] | Strategy[Any]) -> dict[str, Any]:
    """Which plugin of which distribution each came from, for `run.json`: a resume without them says what to install."""
    found = {kind: plugins.origin(type(plugin)) for kind, plugin in used.items()}
    return {kind: {"plugin": one.name, "distribution": one.source, "version": one.version} for kind, one in found.items()}


def refuse_settings(train: TrainConfig, strategy: Strategy[Any], before: Mapping[str, Any] | None) -> None:
    """Refuse what this machine, this strategy or this launcher cannot do, before any row is read."""
    refuse_tracker(train.report_to)
    optimizers.refuse(train.optimizer, strategy)
    if train.plan and not before:
        device.plan_of(train.plan, train.precision)
    processes.refuse_lonely()


def inspected(
    recipe: Recipe, task: Task[Any], source: Any, before: Mapping[str, Any] | None, noted: RecordingCallbacks
) -> tuple[DataSplits, dict[str, Any]]:
    """The rows of all splits, and what the task finds in them; refused where they are others than those the run began with."""
    data = splits.load_splits(recipe.data, task.columns, source)
    if before and data.fingerprint != before["data"]["fingerprint"]:
        raise ResumeError(
            "the data has changed since the run began: "
            f"{data.fingerprint[:12]} instead of {before['data']['fingerprint'][:12]}.",
            hint="Put the old data back to go on, or train anew with --overwrite.",
        )
    noted.on_info("columns: " + ", ".join(f"{role} <- {name}" for role, name in data.columns.items()))
    dataset_info = checked(task, "validate_data", task.validate_data({split: BatchedRows(found) for split, found in data.splits.items()}))
    data = splits.training_splits(data, recipe.data, task.columns, recipe.train.seed, noted.on_warning)
    data = replace(data, splits={split: with_added_columns(found, task) for split, found in data.splits.items()})
    noted.on_info("rows: " + ", ".join(f"{len(found)} {split}" for split, found in data.splits.items()))
    return data, dataset_info


def located(model: str, before: Mapping[str, Any] | None) -> Origin:
    """Where the base model is, at the commit that the run began with."""
    origin = locate(model, before["base"]["commit"] if before and not before["base"]["local"] else None)
    if before and origin.commit != before["base"]["commit"]:
        raise ResumeError("the base model's files have changed since the run began.",
                          hint="Put the old files back to go on, or train anew with --overwrite.")
    return origin


def window_of(stream: Stream, buffer: int, batch_size: int, task: Task[Any], noted: RecordingCallbacks) -> int:
    """How many rows of a stream are shuffled together: whole steps of them."""
    refuse_unstreamed(task)
    noted.on_warning(f"streaming: only a buffer of {buffer} rows is shuffled (data.buffer), so rows sorted by label stay nearly sorted.")
    return max(1, buffer // batch_size) * batch_size


def opened(
    origin: Origin, task: Task[Any], strategy: Strategy[Any], dataset_info: Mapping[str, Any]
) -> tuple[Base, dict[str, Any]]:
    """The base as the task wants it, and what of its configuration that is; refused where task, strategy and model do not fit."""
    require_safetensors(origin)
    refuse_code(origin)
    base = configuration.open_base(origin, task)
    configuration.check_fit(origin, base, task, strategy)
    setup = checked(task, "model_config", task.model_config(dataset_info, base))
    return configuration.apply_setup(base, setup), dict(setup.config)


def encode_splits(
    task: Task[Any], data: DataSplits, base: Base, limit: int | None, train: TrainConfig, noted: RecordingCallbacks, size: int
) -> tuple[dict[str, EncodedDataset], dict[str, Any], Base]:
    """Examples of every split. Training rows are cut at the training length; others only where they must be.

    size: of a stream, how many rows of it.
    """
    configuration.set_length_limit(base, limit)
    if train.max_length is not None and limit is not None and train.max_length > limit:
        noted.on_warning(f"train.max_length={train.max_length} is above the model's limit of {limit} tokens; {limit} is used.")
    wanted = min(train.max_length, limit) if train.max_length and limit else train.max_length
    learnt = data.splits["train"]
    learnt = learnt.read_range(0, size) if isinstance(learnt, Stream) else learnt
    noted.on_progress_start("encoding train", len(learnt))
    first, lengths = encoding.encode_for_training(task, learnt, base, wanted, limit, noted.on_progress)
    unit = task.unit
    if lengths["rows_cut"]:
        noted.on_warning(
            f"{lengths['rows_cut']} of {lengths['rows']} rows are truncated at {lengths['max_length']} {unit}: "
            f"{lengths['tokens_cut']} of {lengths['tokens']} {unit} are lost. Raise it with --set train.max_length=N. In the data: "
            f"{encoding.describe_truncated_rows(lengths, data.row_numbers.get('train'))}."
        )
    cut = f"truncated at {lengths['max_length']}" if lengths["rows_cut"] else "no truncation"
    noted.on_info(f"{unit.removesuffix('s')} lengths: median {lengths['median']}, max {lengths['longest']} ({cut})")
    # Only training rows are truncated at max_length: predictions read the text up to the model's limit, as pipelines do.
    base = replace(base, max_length=limit)
    encoded = {"train": first}
    for split in [name for name in data.splits if name != "train"]:
        noted.on_progress_start(f"encoding {split}", len(data.splits[split]))
        encoded[split] = encoding.encode(task, data.splits[split], base, base.max_length, noted.on_progress)
    noted.on_progress_end()
    return encoded, lengths, base


def refuse_unstreamed(task: Task[Any]) -> None:
    """Refuse to stream for a task that has to see all examples before step 0."""
    if isinstance(task, ReferenceTask):
        raise RecipeError(f"'{task.name}' asks the untouched model about every row before step 0, so its data cannot be streamed.",
                          hint="Leave data.stream out.")


def refuse_code(origin: Origin) -> None:
    """Refuse a base whose weights mean nothing without the code beside them, which is not run."""
    if read_run_record(origin).get("loads_with") == "code":
        raise ModelError("it loads with code that lies beside its weights, which is not run to tune it further.",
                         where=origin.repo, hint="Tune the model that it was made from.")


def refuse_unshardable(strategy: Strategy[Any], shape: Any) -> None:
    """Refuse what cannot be trained in parts, before weights are here."""
    from hubtune.devices import sharding  # it imports torch, which only those wait for who train in parts

    reason = sharding.unfit_strategy(strategy) or sharding.unfit(shape, tuple(shape.modules()))
    if reason:
        raise RecipeError(f"the weights cannot be shared out over processes: {reason}.",
                          hint="Let each process hold all of them: --set train.fsdp=off")


def refuse_tracker(name: str | None) -> None:
    """Refuse a tracker that is not installed."""
    import importlib.util

    if name and importlib.util.find_spec(name) is None:
        raise MissingExtra(f"train.report_to={name} needs the package {name}.", hint=f"Install it with: pip install {name}")
