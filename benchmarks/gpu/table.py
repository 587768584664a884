"""The rows of the GPU's bench: classification at three lengths, and a causal model with LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu import made
from benchmarks.whole.table import Row

TRAINER = {"Trainer": (), "Trainer, compiled": ("--compile",)}
TRL = {"TRL": ("--lora",), "TRL, packing": ("--packing", "2048", "--lora"), "TRL, padding free": ("--padding-free", "--lora")}


def rows(device: str) -> list[Row]:
    """Return the rows for a device: `cuda`, or `cpu` for a tiny form, without torch.compile, which takes minutes there."""
    on_gpu = device == "cuda"
    size, causal = ("bert-base", "llama-1b") if on_gpu else ("bert-tiny", "llama-tiny")
    steps, batch = (40, 32) if on_gpu else (4, 8)
    shared: dict[str, Any] = {"epochs": 1, "batch_size": batch, "max_length": 512}
    found = [
        Row(f"classification, {mean} tokens", "text-classification", f"texts-{mean}", size, "text_classification",
            steps * batch, lr=5e-5, peers=TRAINER if on_gpu else {"Trainer": ()}, **shared)
        for mean in (20, 90, 512)
    ]
    found.append(Row("causal model, LoRA", "text-generation", "answers", causal, "language_model", steps * 8,
                     lr=1e-4, strategy="lora", peers=TRL, **{**shared, "batch_size": 8, "max_length": 1024}))
    return found


def data(row: Row, cache: Path) -> Path:
    """Return the folder of a row's data, made once."""
    folder = cache / "data" / f"{row.data}-{row.rows}"
    if not (folder / "validation.jsonl").is_file():
        mean = row.data.removeprefix("texts-")
        texts = made.labelled(int(mean), 510, row.rows) if mean.isdigit() else made.answered(row.rows)
        made.write(texts, folder)
    return folder
