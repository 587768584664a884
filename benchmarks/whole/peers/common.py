"""The command line, the settings and the clock that all peer scripts share."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measures import device_figures


def parse() -> argparse.Namespace:
    """Parse the arguments of a peer script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--packing", type=int, default=0, help="tokens of a packed row")
    parser.add_argument("--padding-free", action="store_true", help="rows one after the other, without padding")
    parser.add_argument("--compile", action="store_true", help="the model by torch.compile")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def settings(given: argparse.Namespace, grouped: bool = True) -> dict[str, Any]:
    """Return the arguments of `TrainingArguments`, with the options that help on CPUs, or else on a GPU.

    grouped: batches of rows of similar length.
    """
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": given.out, "per_device_train_batch_size": given.batch_size,
        "num_train_epochs": given.epochs, "learning_rate": given.lr, "weight_decay": 0.01,
        "max_grad_norm": 1.0, "warmup_steps": 0.1, "lr_scheduler_type": "linear", "seed": given.seed,
        "use_cpu": not on_gpu, "torch_compile": given.compile, "bf16": True, "optim": "adamw_torch_fused",
        "train_sampling_strategy": "group_by_length" if grouped else "random",
        "dataloader_pin_memory": on_gpu, "dataloader_num_workers": 4 if on_gpu else 0, "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "logging_steps": 1, "logging_strategy": "steps",
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:  # by newlines alone: texts hold other ends of lines
        return [json.loads(line) for line in file]


def train_and_save(trainer: Any, tokenizer: Any = None) -> None:
    """Train with a clock, save the model, and write the marks of the clock to $BENCH_MARKS."""
    from transformers import TrainerCallback

    marks: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    trainer.add_callback(Clock())
    trainer.train()
    trainer.save_model()
    if tokenizer is not None:
        tokenizer.save_pretrained(trainer.args.output_dir)
    spans = [later - earlier for earlier, later in itertools.pairwise(marks)]
    Path(os.environ["BENCH_MARKS"]).write_text(
        json.dumps({"spans": spans, "losses": losses, "steps": len(marks), **device_figures()}), encoding="utf-8")
