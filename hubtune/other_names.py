"""Other names of recipe keys and values: of hubtune 0.1, transformers' Trainer, TRL and PEFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.errors import RecipeError, did_you_mean, listing

RENAMED = {
    "lr": "learning_rate", "steps": "max_steps", "clip": "max_grad_norm", "order": "sampler",
    "patience": "early_stopping_patience", "validations": "evals_per_epoch", "track": "report_to",
    "shard": "fsdp", "prove": "verify",
}
"""Keys of `[train]` in hubtune 0.1, and their names since 0.2."""
RENAMED_VALUES: Mapping[str, Mapping[Any, str]] = {
    "train.sampler": {"bucketed": "length-bucketed"}, "train.fsdp": {"full": "on", "none": "off"},
    "task.kind": {"one": "single_label", "several": "multi_label", "number": "regression"},
}
"""Values of hubtune 0.1, and their names since 0.2."""

_BATCH = (
    "use train.batch_size, the rows of an optimizer step on all devices together; micro-batches "
    "are sized to the memory")
_LAUNCHER = "configure it with the launcher (accelerate config), and see train.fsdp"
INSTEAD = {
    "num_train_epochs": "use train.epochs", "num_epochs": "use train.epochs",
    "max_epochs": "use train.epochs", "num_training_steps": "use train.max_steps",
    "train_batch_size": _BATCH, "per_device_train_batch_size": _BATCH,
    "per_gpu_train_batch_size": _BATCH, "micro_batch_size": _BATCH,
    "gradient_accumulation_steps": _BATCH, "auto_find_batch_size": _BATCH,
    "per_device_eval_batch_size": "leave it out: evaluation batches are sized to the memory",
    "eval_batch_size": "leave it out: evaluation batches are sized to the memory",
    "fp16": "use train.precision=fp16", "bf16": "use train.precision=bf16",
    "tf32": "use train.precision=auto", "mixed_precision": "use train.precision",
    "torch_dtype": "use train.precision", "dtype": "use train.precision",
    "load_best_model_at_end": "use train.keep=best, the default",
    "compute_metrics": "use train.metrics (list: hubtune metrics)",
    "loss": "use loss.name (list: hubtune losses)",
    "loss_type": "use loss.name (list: hubtune losses)",
    "loss_function": "use loss.name (list: hubtune losses)",
    "compute_loss_func": "use loss.name (list: hubtune losses)",
    "class_weight": "use loss.class_weights with loss.name=focal",
    "class_weights": "use loss.class_weights with loss.name=focal",
    "greater_is_better": "leave it out: the metric says so",
    "save_total_limit": "leave it out: only the newest and the best stay",
    "lr_scheduler_type": "use train.schedule", "lr_scheduler": "use train.schedule",
    "scheduler": "use train.schedule",
    "warmup_ratio": "use train.warmup, a share of all steps if below 1",
    "warmup_steps": "use train.warmup, a number of steps if 1 or more",
    "logging_steps": "leave it out: every step is written to log.jsonl",
    "logging_strategy": "leave it out: every step is written to log.jsonl",
    "logging_dir": "use train.report_to=tensorboard, which writes to the run's folder",
    "eval_steps": "use train.evals_per_epoch", "eval_strategy": "use train.evals_per_epoch",
    "evaluation_strategy": "use train.evals_per_epoch",
    "save_steps": "use train.save_minutes; validations save, too, half a minute after the last",
    "save_strategy": "use train.save_minutes; validations save, too, half a minute after the last",
    "max_seq_length": "use train.max_length", "max_seq_len": "use train.max_length",
    "model_max_length": "use train.max_length", "cutoff_len": "use train.max_length",
    "sequence_len": "use train.max_length", "max_source_length": "use train.max_length",
    "block_size": "use train.max_length", "optim": "use train.optimizer",
    "group_by_length": "use train.sampler=length-bucketed",
    "torch_compile": "leave it out: blocks are not compiled",
    "compile": "leave it out: blocks are not compiled",
    "padding_free": "use train.sampler=length-bucketed",
    "packing": "use task.packing (text-generation)", "data_seed": "use train.seed",
    "deepspeed": "use train.fsdp=on: DeepSpeed is not supported", "fsdp_config": _LAUNCHER,
    "ddp_find_unused_parameters": "leave it out",
    "dataloader_num_workers": "leave it out: rows are encoded before the first step",
    "remove_unused_columns": "leave it out: columns are named in [data]",
    "do_train": "use: hubtune train", "do_eval": "use: hubtune evaluate",
    "output_dir": "use --out FOLDER", "overwrite_output_dir": "use --overwrite",
    "resume_from_checkpoint": "use: hubtune train --resume RUN",
    "push_to_hub": "use publish.repo, or --push REPO", "hub_model_id": "use publish.repo",
    "hub_private_repo": "use publish.public", "hub_token": "log in with: hf auth login",
    "model_name_or_path": "use model.id, or --model", "model_name": "use model.id, or --model",
    "dataset_name": "use data.source, or --data", "train_file": "use data.source, or --data",
    "validation_file": "use data.validation", "max_train_samples": "use data.limit",
    "max_samples": "use data.limit", "dataset_text_field": "use data.text",
    "text_column": "use data.text", "label_column": "use data.label",
    "target_column": "use data.label", "streaming": "use data.stream",
    "use_peft": "use --strategy lora", "peft": "use --strategy lora", "lora_r": "use strategy.rank",
    "r": "use strategy.rank", "lora_rank": "use strategy.rank", "lora_alpha": "use strategy.alpha",
    "lora_dropout": "use strategy.dropout", "load_in_4bit": "use --strategy qlora",
    "load_in_8bit": "use --strategy qlora", "quantization": "use --strategy qlora",
}
"""Names of Trainer, TRL, PEFT and tools built on them, each with what to write in a recipe."""


def key_advice(table: str, key: str, value: Any = None) -> tuple[str, str | None] | None:
    """Return the message and hint for a key of another tool or version; None for other keys."""
    if table == "train" and key in RENAMED:
        new = f"train.{RENAMED[key]}"
        value = RENAMED_VALUES.get(new, {}).get(value, value)
        hint = None if value is None else f"Write: --set {new}={format_literal(value)}"
        return f"{table}.{key} is now {new}.", hint
    return (f"there is no key {table}.{key}: {INSTEAD[key]}.", None) if key in INSTEAD else None


def unknown_key(table: str, name: str, value: Any, known: Sequence[str],
                where: str | None) -> RecipeError:
    """Return the error for an unknown key: the key that was meant, or all known ones."""
    advice = key_advice(table, name, value)
    if advice is not None:
        return RecipeError(advice[0], hint=advice[1], where=where)
    keys = f"Keys: {listing(known, 40)}." if known else "It has none."
    return RecipeError(f"there is no key {table}.{name}.{did_you_mean(name, known)} {keys}",
                       where=where)


def value_advice(key: str, value: Any) -> str:
    """Return ` ('one' is now 'single_label')` for a value of hubtune 0.1, else an empty string."""
    new = RENAMED_VALUES.get(key, {}).get(value) if isinstance(value, str) else None
    return f" ('{value}' is now '{new}')" if new else ""


def format_literal(value: Any) -> str:
    """Format a value as `--set` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
