"""What hubtune is measured beside: the script that people copy, and transformers' Trainer, on the same rows.

Each takes a `Job`, and gives its steps and a function that asks the trained model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measures import BATCH, Steps
from benchmarks.rows import Row

LENGTH = 128
"""Tokens that longer texts are cut to, and that shorter ones are padded to where nobody knows better."""


@dataclass(frozen=True)
class Job:
    """What is to be learned: by which model, from which rows, in how many steps."""

    folder: str
    rows: list[Row]
    classes: list[str]
    steps: int
    seed: int
    lr: float

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.rows]

    @property
    def labels(self) -> list[int]:
        return [self.classes.index(label) for _, label in self.rows]


Answers = Callable[[Sequence[str]], list[str]]
"""From texts to labels."""
Trained = tuple[Steps, Answers]


def classifier(job: Job) -> tuple[Any, Any]:
    """The pretrained model with a new head, and its tokenizer."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(job.seed)
    model = AutoModelForSequenceClassification.from_pretrained(job.folder, num_labels=len(job.classes))
    return AutoTokenizer.from_pretrained(job.folder), model


def textbook(job: Job, *, bf16: bool = False, lora: bool = False, frozen: bool = False) -> Trained:
    """Every text padded to 128, AdamW, a linear schedule, batches in random order."""
    import torch
    from transformers import get_linear_schedule_with_warmup

    tokenizer, model = classifier(job)
    encoded = tokenizer(job.texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    if lora:
        model = with_lora(model)
    if frozen:
        model.base_model.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=job.lr)
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.1 * job.steps), job.steps)
    targets = torch.tensor(job.labels)
    model.train()
    steps = Steps()
    for rows in batches(len(job.rows), job.steps, job.seed):
        mask = encoded["attention_mask"][rows]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=encoded["input_ids"][rows], attention_mask=mask, labels=targets[rows]).loss
        loss.backward()
        steps.norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        steps.losses.append(float(loss.detach()))
        steps.tokens.append(int(mask.sum()))
        steps.mark()
    return steps, answering(model, tokenizer, job.classes)


def with_lora(model: Any) -> Any:
    """LoRA of rank 16 on queries and values, as PEFT's page on sequence classification has it."""
    from peft import LoraConfig, TaskType, get_peft_model

    return get_peft_model(model, LoraConfig(TaskType.SEQ_CLS, r=16, lora_alpha=16, target_modules=["query", "value"]))


def batches(count: int, steps: int, seed: int) -> Iterator[Any]:
    """Random batches, epoch after epoch."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    made = 0
    while made < steps:
        order = torch.randperm(count, generator=draw)
        for start in range(0, count - BATCH + 1, BATCH):
            if made == steps:
                return
            made += 1
            yield order[start : start + BATCH]


def trainer(job: Job, *, padding: str = "dynamic", everything: bool = False) -> Trained:
    """transformers' Trainer, every text padded to 128 or to the longest of its batch.

    everything: also lengths that match, and bf16.
    """
    from datasets import Dataset
    from transformers import (
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        default_data_collator,
    )

    tokenizer, model = classifier(job)
    encoded = tokenizer(job.texts, truncation=True, max_length=LENGTH, padding="max_length" if padding == "128" else False)
    collator = default_data_collator if padding == "128" else DataCollatorWithPadding(tokenizer)
    steps = Steps()

    def counted(examples: list[Any]) -> Any:
        batch = collator(examples)
        steps.tokens.append(int(batch["attention_mask"].sum()))
        return batch

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.mark()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                steps.losses.append(float(logs["loss"]))
                steps.norms.append(float(logs["grad_norm"]))

    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out, per_device_train_batch_size=BATCH, max_steps=job.steps, learning_rate=job.lr, warmup_steps=int(0.1 * job.steps),
            use_cpu=True, bf16=everything, train_sampling_strategy="group_by_length" if everything else "random", report_to=[],
            save_strategy="no", logging_steps=1, disable_tqdm=True, seed=job.seed,
        )
        made = Trainer(model, arguments, train_dataset=Dataset.from_dict({**encoded, "labels": job.labels}), data_collator=counted,
                       callbacks=[Clock()])
        made.remove_callback(PrinterCallback)
        made.train()
    return steps, answering(made.model, tokenizer, job.classes)


def answering(model: Any, tokenizer: Any, classes: Sequence[str]) -> Answers:
    """Ask a model in fp32, texts of similar length together, each cut to what the model can read."""
    import torch

    def answers(texts: Sequence[str]) -> list[str]:
        model.eval()
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        found = [""] * len(texts)
        with torch.no_grad():
            for start in range(0, len(order), 64):
                part = order[start : start + 64]
                inputs = tokenizer([texts[index] for index in part], padding=True, truncation=True, return_tensors="pt")
                for index, best in zip(part, model(**inputs).logits.argmax(-1).tolist(), strict=True):
                    found[index] = classes[best]
        return found

    return answers
