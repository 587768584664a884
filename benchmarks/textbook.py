"""The script that people copy: every text padded to 128 tokens, fp32, batches of 16, AdamW, a linear schedule.

The peer that hubtune is measured beside. Prints one JSON line: accuracy on the test split, CPU and wall seconds.

    python benchmarks/textbook.py MODEL_FOLDER DATA_FOLDER --epochs 5 --lr 8.8e-5 --seed 0
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    import torch
    from torch.utils.data import DataLoader, TensorDataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    splits = {}
    for split in ("train", "test"):
        with (arguments.data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            splits[split] = list(csv.DictReader(file))
    names = sorted({row["label"] for row in splits["train"]})

    def tensors(split: str) -> TensorDataset:
        rows = splits[split]
        encoded = tokenizer([row["text"] for row in rows], padding="max_length", truncation=True, max_length=128,
                            return_tensors="pt")
        labels = torch.tensor([names.index(row["label"]) for row in rows])
        return TensorDataset(encoded["input_ids"], encoded["attention_mask"], labels)

    model = AutoModelForSequenceClassification.from_pretrained(arguments.model, num_labels=len(names))
    loader = DataLoader(tensors("train"), batch_size=16, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr)
    steps = arguments.epochs * len(loader)
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.1 * steps), steps)
    wall, cpu = time.perf_counter(), time.process_time()
    model.train()
    for _ in range(arguments.epochs):
        for ids, mask, labels in loader:
            model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    trained = {"train_cpu_seconds": round(time.process_time() - cpu, 1), "train_seconds": round(time.perf_counter() - wall, 1)}
    model.eval()
    right = 0
    with torch.no_grad():
        for ids, mask, labels in DataLoader(tensors("test"), batch_size=64):
            right += int((model(input_ids=ids, attention_mask=mask).logits.argmax(-1) == labels).sum())
    print(json.dumps({
        "script": "textbook", "seed": arguments.seed, "epochs": arguments.epochs, "steps": steps,
        "accuracy": right / len(splits["test"]), **trained,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
