"""What hubtune is measured beside: the script that people copy, and transformers' Trainer, on the same rows.

Each variant is a function of (model folder, texts, labels, steps) that returns the CPU seconds of those steps, the rows
they took, and the trained model. The first step is not counted: libraries prepare their kernels in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BATCH = 16
PADDED = 128


@dataclass
class Stretch:
    """CPU and wall seconds of steps that were run one after the other, without the first."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def mark(self) -> None:
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())

    def seconds(self) -> tuple[float, float]:
        return self.cpu[-1] - self.cpu[0], self.wall[-1] - self.wall[0]


def classifier(folder: str, classes: int) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes)


def textbook(folder: str, texts: list[str], labels: list[int], steps: int, lr: float, bf16: bool = False, lora: bool = False) -> tuple[Stretch, Any]:
    """Every text padded to 128, AdamW, a linear schedule, batches of 16 in random order."""
    import torch
    from transformers import AutoTokenizer, get_linear_schedule_with_warmup

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=PADDED, return_tensors="pt")
    model = classifier(folder, len(set(labels)))
    if lora:
        model = with_lora(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.1 * steps), steps)
    targets = torch.tensor(labels)
    model.train()
    stretch = Stretch()
    for rows in batches(len(texts), steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model(input_ids=encoded["input_ids"][rows], attention_mask=encoded["attention_mask"][rows],
                  labels=targets[rows]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        stretch.mark()
    return stretch, model


def with_lora(model: Any) -> Any:
    """LoRA of rank 16 on queries and values, as PEFT's page on sequence classification has it."""
    from peft import LoraConfig, TaskType, get_peft_model

    return get_peft_model(model, LoraConfig(TaskType.SEQ_CLS, r=16, lora_alpha=16, target_modules=["query", "value"]))


def batches(count: int, steps: int) -> Iterator[Any]:
    """Random batches, epoch after epoch."""
    import torch

    draw = torch.Generator().manual_seed(0)
    made = 0
    while made < steps:
        order = torch.randperm(count, generator=draw)
        for start in range(0, count - BATCH + 1, BATCH):
            if made == steps:
                return
            made += 1
            yield order[start : start + BATCH]


def trainer(folder: str, texts: list[str], labels: list[int], steps: int, lr: float, everything: bool = False) -> tuple[Stretch, Any]:
    """transformers' Trainer with dynamic padding; with `everything` also lengths that match and bf16."""
    import tempfile

    from datasets import Dataset
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(texts, truncation=True, max_length=PADDED)
    data = Dataset.from_dict({**encoded, "labels": labels})
    stretch = Stretch()

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stretch.mark()

    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out, per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=lr, warmup_steps=int(0.1 * steps), use_cpu=True,
            bf16=everything, train_sampling_strategy="group_by_length" if everything else "random", report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, seed=0,
        )
        made = Trainer(classifier(folder, len(set(labels))), arguments, train_dataset=data, data_collator=DataCollatorWithPadding(tokenizer),
                       callbacks=[Clock()])
        made.train()
        return stretch, made.model


def hubtune(folder: str, texts: list[str], labels: list[int], steps: int, **settings: Any) -> tuple[Stretch, Any]:
    """hubtune's own loop: prepared as a user's run is, then its steps, without validation."""
    import tempfile

    from hubtune import api

    names = [f"label {label}" for label in labels]
    rows = [{"text": text, "label": name} for text, name in zip(texts, names, strict=True)]
    stretch = Stretch()
    with tempfile.TemporaryDirectory() as out, clocked(stretch):
        strategy = settings.pop("strategy", "full")
        run = api.train("text-classification", model=folder, data={"train": rows, "validation": rows[:32]}, strategy=strategy, out=Path(out) / "run",
                        set={"train.batch_size": BATCH, "train.steps": steps, "train.keep": "last", "train.prove": False,
                             "train.validations": 1, **{f"train.{key}": value for key, value in settings.items()}})
    return stretch, run


@contextmanager
def clocked(stretch: Stretch) -> Iterator[None]:
    """Mark the end of every step of hubtune's loop."""
    from hubtune.engine import Loop

    own = Loop.one_step

    def one_step(loop: Loop) -> None:
        own(loop)
        stretch.mark()

    Loop.one_step = one_step
    try:
        yield
    finally:
        Loop.one_step = own
