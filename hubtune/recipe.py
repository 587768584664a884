"""Recipes: everything a run depends on, as one frozen value; read from TOML and `--set`.

Recipes are independent of plugins, which check their own options and the roles of their columns.
"""

from __future__ import annotations

import codecs
import dataclasses
import encodings.aliases
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubtune.errors import RecipeError, did_you_mean, listing
from hubtune.options import fill, option


@dataclass(frozen=True)
class PluginChoice:
    """A plugin's name and its options as given; its `Options` checks them later."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


CLEAN = ("strip-labels", "merge-label-case", "drop-empty", "drop-unlabelled", "drop-duplicates",
         "drop-conflicts", "drop-rare-labels", "drop-leaked")
"""Operations of `data.clean`, in the order in which they are applied."""


@dataclass(frozen=True)
class DataConfig:
    """`[data]`: where rows come from. Any further key is a role: `text = "content.body"`."""

    source: str = option(
        "",
        "a file, a folder with train/validation/test files, a pattern such as 'part*.csv', - for "
        "standard input, or a Hub data set org/name[:config]")
    validation: float | str = option(
        0.1, "the share of train held out when there is no validation split, or a source")
    limit: int | None = option(None, "use at most this many rows of each split")
    columns: Mapping[str, str] = field(default_factory=dict)
    stream: bool = option(
        False, "read the train split of a Hub data set while training, keeping only a buffer of it")
    buffer: int = option(10_000, "rows of a stream that are shuffled together")
    label_names: list[str] = option(
        [], "names of the classes 0, 1, 2 ... where labels are numbers, or 0/1 for each class")
    clean: list[str] = option(
        [], "mend the rows before training: strip-labels, merge-label-case, drop-empty, "
        "drop-unlabelled, drop-duplicates, drop-conflicts, drop-rare-labels, drop-leaked")
    splits: list[str] | dict[str, str] | None = option(
        None, "the splits to use, by name: [\"train\", \"validation\"]; or what each is used as: "
        "{train_sft = \"train\"}; none: all that are called train, validation or test")
    encoding: str | None = option(
        None, "the encoding of text files, such as cp1252; none: UTF-8, UTF-16 and UTF-32 as their "
        "byte order mark says, else a guess that is said")
    folds: int | None = option(None, "cross-validate: hold out each of so many parts of train once")
    fold: int | None = option(None, "of data.folds, hold out this one (from 0), and train once")


@dataclass(frozen=True)
class ModelConfig:
    """`[model]`: how the base model is taken; its `id` is a field of the recipe."""

    resize_embeddings: bool = option(
        False, "enlarge the embedding for tokens that the tokenizer has and the model has no row "
        "for; new rows begin at the mean of the others")
    library_class: bool = option(
        False, "use transformers' own class for a model that names code of its own (auto_map); the "
        "code does not run and is not published")


@dataclass(frozen=True)
class TrainConfig:
    """`[train]`: optimization settings.

    None: resolved from the data, the model and the strategy.
    """

    epochs: float | None = option(None, "passes over the data; none: from the number of rows", search=(0.5, 2.0, "log"))
    max_steps: int | None = option(None, "optimizer steps in all, instead of epochs")
    batch_size: int | None = option(
        None, "rows per optimizer step, on all devices together; none: from the number of rows",
        search=[8, 16, 32])
    learning_rate: float | None = option(
        None, "the peak learning rate; none: from the strategy and the model's size", search=(0.2, 5.0, "log"))
    weight_decay: float | None = option(None, "AdamW's decay of matrices; none: the strategy's, else 0.01")
    optimizer: str = option("adamw", "adamw: the strategy's own; adamw-8bit: its state in 8 bits, on NVIDIA GPUs",
                            choices=("adamw", "adamw-8bit"))
    warmup: float = option(0.1, "the share of steps (below 1) or the steps until the peak rate")
    schedule: str = option("linear", "decay of the learning rate after the warmup",
                           choices=("linear", "cosine", "constant"))
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm; 0: no clipping")
    seed: int = option(0, "random seed of the split, the new head, the sampler and dropout")
    precision: str = option("auto", "the number format of training", choices=("auto", "fp32", "bf16", "fp16", "fp64"))
    kernels: str = option(
        "auto",
        "auto: faster implementations of the same mathematics, and frozen parts computed once; "
        "plain: torch's own, nothing cached", choices=("auto", "plain"))
    plan: str | None = option(
        None, "use the compute settings of another run, given by its folder, and measure nothing: "
        "the same micro-batches")
    sampler: str | None = option(
        None,
        "random batches, or batches of rows of similar length; none: length-bucketed, if the loss "
        "is a sum over rows", choices=("random", "length-bucketed"))
    max_length: int | None = option(
        None, "tokens that longer training texts are truncated to; none: from the data and the model")
    batch_norm: str = option("frozen", "the running statistics of pretrained batch norms stay, or follow the data",
                             choices=("frozen", "train"))
    metrics: list[str] = option([], "further metrics, by name, for classification tasks (list: hubtune metrics)")
    metric_for_best_model: str | None = option(
        None, "the metric that decides which weights are best, one of train.metrics; none: the task's")
    keep: str | None = option(
        None, "which weights are the result; none: the strategy's, else best", choices=("best", "last"))
    early_stopping_patience: int | None = option(
        None, "stop after this many validations without improvement, 0: never; none: the strategy's, else 3")
    evals_per_epoch: int | None = option(None, "validations per epoch; none: one")
    save_minutes: float = option(10.0, "most minutes between checkpoints; after a validation half a minute is enough")
    gradient_checkpointing: str = option(
        "auto", "recompute activations in the backward pass, to save memory; auto: only where memory is short",
        choices=("auto", "on", "off"))
    verify: bool = option(
        True, "compare the saved model with the trained one in a clean process (always done when publishing)")
    fsdp: str = option(
        "auto",
        "several processes: on: each holds a shard of the weights (FSDP2); off: each holds all "
        "(DDP); auto: as the launcher is configured", choices=("auto", "on", "off"))
    report_to: str | None = option(None, "also log to a tracker", choices=("tensorboard", "wandb", "trackio"))


@dataclass(frozen=True)
class ReportConfig:
    """`[report]`: the page `report.html` beside a run."""

    rows: bool = option(True, "show the worst rows with their texts, images and sounds; false: no row is kept for the page")


@dataclass(frozen=True)
class PublishConfig:
    """`[publish]`: where the trained model is published."""

    repo: str | None = option(None, "push to this repository when the training is done")
    public: bool = option(False, "make the repository public")
    pr: bool = option(False, "propose it as a pull request")
    replace: bool = option(False, "replace the model on main without comparing with it")
    license: str | None = option(None, "the licence of the tuned model; none: the base model's")
    language: list[str] = option([], "languages of the data (ISO 639 codes); empty: the base model's")
    dtype: str = option("float32", "the number format of the published weights, which are rounded before they are scored; base: "
                        "the base model's", choices=("float32", "bfloat16", "base"))


@dataclass(frozen=True)
class Recipe:
    """Everything that a run depends on. trusted: of `--trust-code`, in no file, so that no recipe lets code run."""

    task: PluginChoice
    model: str
    data: DataConfig = DataConfig()
    strategy: PluginChoice = PluginChoice("full")
    loss: PluginChoice | None = None
    train: TrainConfig = TrainConfig()
    publish: PublishConfig = PublishConfig()
    report: ReportConfig = ReportConfig()
    model_config: ModelConfig = ModelConfig()
    trusted: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the tables of the TOML form as JSON values; unset keys are null."""
        data = field_values(self.data)
        columns = data.pop("columns", {})
        return {
            "task": {"name": self.task.name, **self.task.options},
            "strategy": {"name": self.strategy.name, **self.strategy.options},
            **({"loss": {"name": self.loss.name, **self.loss.options}} if self.loss else {}),
            "model": {"id": self.model, **field_values(self.model_config)},
            "data": {**data, **columns},
            "train": field_values(self.train),
            "publish": field_values(self.publish), "report": field_values(self.report),
        }

    def as_toml(self) -> str:
        """Return the recipe as TOML, which `read` turns into the same recipe."""
        import tomlkit

        return tomlkit.dumps(without_none(self.as_dict()))


TABLES = ("task", "strategy", "loss", "model", "data", "train", "publish", "report")


def without_none(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Remove unset keys from tables, since TOML has no null."""
    return {name: {key: value for key, value in table.items() if value is not None}
            for name, table in tables.items()}


def field_values(part: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name."""
    return {item.name: getattr(part, item.name) for item in dataclasses.fields(part)}


def read(path: Path, sets: Iterable[str] = ()) -> Recipe:
    """Read the recipe in a TOML file, with `--set` assignments over it."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"'{path}' cannot be read: {error.strerror}" if path.exists() else f"there is no recipe '{path}'"
        raise RecipeError(f"{what}.", hint="Write one with: hubtune recipe TASK > recipe.toml") from None
    except (ValueError, RecursionError) as error:  # also of a number with too many digits
        raise RecipeError(f"this is not TOML: {str(error)[:300]}", where=str(path)) from None
    return build(override(tables, sets), where=path.name)


def override(tables: Mapping[str, Any], sets: Iterable[str]) -> dict[str, Any]:
    """Apply `table.key=value` assignments to tables. A value is a TOML literal, else a string."""
    merged = {name: dict(table) if isinstance(table, Mapping) else table
              for name, table in tables.items()}
    for item in sets:
        key, equals, text = item.partition("=")
        table, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise RecipeError(f"--set takes TABLE.KEY=VALUE, not '{item}'.",
                              hint="For example: --set train.learning_rate=3e-5")
        if table not in TABLES:
            near = did_you_mean(table, TABLES)
            raise RecipeError(f"no table '{table}' in '{item}'.{near} Tables: {listing(TABLES)}.")
        target = merged.setdefault(table, {})
        if not isinstance(target, dict):
            raise RecipeError(f"[{table}] must be a table of keys, not {target!r}.")
        target[name] = parse_literal(text.strip())
    return merged


def parse_literal(text: str) -> Any:
    """Parse a TOML value, else return the text: `3e-5`, `true`, `[1, 2]`, `body`."""
    if text in ("none", "None"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def build(tables: Mapping[str, Any], where: str | None = None) -> Recipe:
    """Build a recipe from tables. Raises RecipeError for unknown keys and invalid values."""
    for name, table in tables.items():
        if name not in TABLES:
            near = did_you_mean(name, TABLES)
            raise RecipeError(f"no table [{name}].{near} Tables: {listing(TABLES)}.", where=where)
        if not isinstance(table, Mapping):
            raise RecipeError(f"[{name}] must be a table of keys, not {table!r}.", where=where)
    data = build_data(dict(tables.get("data", {})), where)
    task = dict(tables.get("task", {}))
    strategy = dict(tables.get("strategy", {}))
    model = dict(tables.get("model", {}))
    loss = dict(tables.get("loss", {}))
    if loss and not isinstance(loss.get("name"), str):
        raise RecipeError(
            "no loss: [loss] needs a name beside its options.", where=where,
            hint="See which there are: hubtune losses\nFor example: --set loss.name=focal")
    if "name" not in task:
        raise RecipeError("no task: [task] needs a name.", hint="List them with: hubtune tasks",
                          where=where)
    if "id" not in model:
        raise RecipeError(
            "no model: name one with --model, or in [model] with id = \"org/name\".",
            hint="Look for one with: hubtune search WORDS", where=where,
        )
    if "revision" in model:
        keys = ", ".join(["id", *field_values(ModelConfig())])
        raise RecipeError(f"no key model.revision; [model] has: {keys}.", where=where,
                          hint='Give a revision within the id: id = "org/name@revision"')
    name = str(model.pop("id"))
    return Recipe(
        task=PluginChoice(str(task.pop("name")), task),
        strategy=PluginChoice(str(strategy.pop("name", "full")), strategy),
        loss=PluginChoice(str(loss.pop("name")), loss) if loss else None,
        model=name,
        model_config=fill(ModelConfig, model, "model", where),
        data=data,
        train=check_ranges(fill(TrainConfig, dict(tables.get("train", {})), "train", where), where),
        publish=fill(PublishConfig, dict(tables.get("publish", {})), "publish", where),
        report=fill(ReportConfig, dict(tables.get("report", {})), "report", where),
    )


def build_data(data: dict[str, Any], where: str | None) -> DataConfig:
    """Build the settings of `[data]`; its keys without a meaning of their own name columns."""
    limit, buffer = data.get("limit"), data.get("buffer", 1)
    if limit is not None and (not isinstance(limit, int) or limit < 4):
        raise RecipeError(f"data.limit must be a whole number from 4, not {limit!r}.", where=where)
    if not isinstance(buffer, int) or buffer < 1:
        raise RecipeError(f"data.buffer must be a whole number from 1, not {buffer!r}.", where=where)
    clean = data.get("clean", [])
    for name in clean if isinstance(clean, list) else ():
        if name not in CLEAN:
            near = did_you_mean(str(name), CLEAN)
            raise RecipeError(f"data.clean has no operation {name!r}.{near} "
                              f"Operations: {listing(CLEAN, 20)}.", where=where)
    check_encoding(data.get("encoding"), where)
    known = {item.name for item in dataclasses.fields(DataConfig)} - {"columns"}
    columns = {role: data.pop(role) for role in list(data) if role not in known}
    for role, column in columns.items():
        if not isinstance(column, str):
            raise RecipeError(f"data.{role} must be the name of a column, not {column!r}.", where=where)
    return dataclasses.replace(fill(DataConfig, data, "data", where), columns=columns)


def check_encoding(name: Any, where: str | None = None) -> None:
    """Refuse the name of an encoding that Python does not know, or that is not one of text."""
    try:
        if isinstance(name, str):  # other types are refused with the settings
            "".encode(name)
            b"a\xe9".decode(name, "replace")  # which codecs of single names, such as idna, refuse
            if "escape" in codecs.lookup(name).name or "punycode" in codecs.lookup(name).name:
                raise LookupError
    except (LookupError, UnicodeError, ValueError):
        known = {*encodings.aliases.aliases, *encodings.aliases.aliases.values()}
        near = did_you_mean(name.lower().replace("-", "_").replace(" ", "_"), sorted(known))
        raise RecipeError(
            f"data.encoding: '{name}' is no encoding of text.{near}", where=where,
            hint="Such as: utf-8, cp1252 (Windows), cp1251, latin-1, shift_jis, utf-16") from None


def check_ranges(train: TrainConfig, where: str | None) -> TrainConfig:
    """Refuse numbers that are out of range."""
    for name, value in vars(train).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"train.{name} must be finite, not {value}.", where=where)
    for name in ("epochs", "max_steps", "batch_size", "learning_rate", "max_length",
                 "evals_per_epoch"):
        value = getattr(train, name)
        if value is not None and value <= 0:
            raise RecipeError(f"train.{name} must be above 0, not {value}.", where=where)
    for name in ("weight_decay", "warmup", "max_grad_norm", "early_stopping_patience", "seed",
                 "save_minutes"):
        if (getattr(train, name) or 0) < 0:
            raise RecipeError(f"train.{name} must not be negative: {getattr(train, name)}.",
                              where=where)
    if train.epochs is not None and train.max_steps is not None:
        raise RecipeError(
            f"train.epochs={train.epochs:g} and train.max_steps={train.max_steps} exclude "
            "each other; set one.", where=where)
    return train
