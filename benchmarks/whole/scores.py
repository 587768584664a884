"""Scores of both sides on held-out rows, by the same code, over seeds: `python -m benchmarks.whole.scores`.

The rows of the table are trained by hubtune and by the peer, as `benchmarks.whole` measures them; the saved
models are then loaded by plain transformers or sentence-transformers, and asked about the data's own test rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import rows as texts
from benchmarks.rows import FOLDER
from benchmarks.whole import bases, data
from benchmarks.whole.measured import measure
from benchmarks.whole.table import BY_NAME

BATCH = 32


def batches(rows: Sequence[Any]) -> list[Sequence[Any]]:
    """Return rows in batches."""
    return [rows[start:start + BATCH] for start in range(0, len(rows), BATCH)]


def accuracy(name: str) -> Callable[[Path, int], float]:
    """Return what computes the share of test texts whose label is right."""
    def score(model: Path, max_length: int) -> float:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        asked, tokenizer = AutoModelForSequenceClassification.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
        right = 0
        test = texts.read(name).test
        for part in batches(test):
            tensors = tokenizer([text for text, _ in part], padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            with torch.no_grad():
                found = asked(**tensors).logits.argmax(-1).tolist()
            right += sum(asked.config.id2label[index] == label for index, (_, label) in zip(found, part, strict=True))
        return right / len(test)

    return score


def spans_of(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Return the entities of BIO tags: first word, word after the last, type. As conlleval reads them."""
    found, start, kind = set(), 0, ""
    for index, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            found.add((start, index, kind))
            kind = ""
        if tag != "O" and not kind:
            start, kind = index, tag[2:]
    return found


def entity_f1(model: Path, max_length: int) -> float:
    """Compute the micro F1 of entities, from the first token of each word."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    asked, tokenizer = AutoModelForTokenClassification.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    right = said = there = 0
    for part in batches(data.jsonl(FOLDER / "wnut17" / "test.jsonl")):
        tensors = tokenizer([row["tokens"] for row in part], padding=True, truncation=True, max_length=max_length,
                            is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            found = asked(**tensors).logits.argmax(-1).tolist()
        for index, row in enumerate(part):
            tags = ["O"] * len(row["tokens"])
            for place, word in reversed(list(enumerate(tensors.word_ids(index)))):
                if word is not None:  # from the end, so that a word keeps the tag of its first token
                    tags[word] = asked.config.id2label[found[index][place]]
            guessed, true = spans_of(tags), spans_of(row["ner_tags"])
            right, said, there = right + len(guessed & true), said + len(guessed), there + len(true)
    return 2 * right / max(1, said + there)


def spearman(model: Path, max_length: int) -> float:
    """Compute the rank correlation of cosine and score."""
    import numpy as np
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    asked = SentenceTransformer(str(model), device="cpu")
    rows = data.table(FOLDER / "sts2016" / "test.csv")
    one, other = (np.asarray(asked.encode([row[column] for row in rows], normalize_embeddings=True)) for column in ("sentence1", "sentence2"))
    return float(spearmanr((one * other).sum(1), [float(row["score"]) for row in rows]).statistic)


def completion_loss(model: Path, max_length: int) -> float:
    """Compute the mean loss of a completion's tokens, in nats; the first 200 rows of test."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if (model / "adapter_config.json").is_file():
        from peft import AutoPeftModelForCausalLM

        asked = AutoPeftModelForCausalLM.from_pretrained(model).eval()
    else:
        asked = AutoModelForCausalLM.from_pretrained(model).eval()
    total = count = 0.0
    for line in data.jsonl(FOLDER / "gsm8k_preference" / "test.jsonl")[:200]:
        prompt = tokenizer(line["prompt"] + "\n", add_special_tokens=False)["input_ids"]
        answer = [*tokenizer(line["chosen"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([[*prompt, *answer][:max_length]])
        with torch.no_grad():
            logits = asked(input_ids=ids).logits[0, len(prompt) - 1:-1]
        target = ids[0, len(prompt):]
        total += float(torch.nn.functional.cross_entropy(logits.float(), target, reduction="sum"))
        count += len(target)
    return total / count


SCORES: dict[str, tuple[str, Callable[[Path, int], float]]] = {
    "sentiment_uci": ("accuracy", accuracy("sentiment_uci")), "banking77": ("accuracy", accuracy("banking77")),
    "wnut17": ("entity F1", entity_f1), "sts2016": ("Spearman", spearman),
    "causal-full": ("loss, lower is better", completion_loss), "causal-lora": ("loss, lower is better", completion_loss),
}


def main() -> None:
    """Train and score rows of the table, both sides, over seeds, and print a line for each row."""
    given = argparse.ArgumentParser(description=main.__doc__)
    given.add_argument("--rows", nargs="+", default=list(SCORES), choices=list(SCORES))
    given.add_argument("--seeds", type=int, default=3)
    given.add_argument("--scale", type=float, default=1.0)
    given.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given.add_argument("--cache", type=Path, default=Path("runs/bench-whole"))
    given.add_argument("--out", type=Path, default=Path("benchmarks/results/scores.json"))
    chosen = given.parse_args()
    found: list[dict[str, Any]] = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.out.is_file() else []
    done = {(line["row"], line["way"], line["seed"], line["scale"]) for line in found}
    for seed in range(chosen.seeds):
        for name in chosen.rows:
            row, (metric, score) = BY_NAME[name], SCORES[name]
            inputs = (data.make(row.data, int(row.rows * chosen.scale), chosen.cache), bases.make(row.base, chosen.cache))
            for way in ("hubtune", next(iter(row.peers))):
                if (name, way, seed, chosen.scale) in done:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    kept = Path(folder) / "model"
                    measure(row, way, int(row.rows * chosen.scale), inputs, chosen.threads, seed, {}, kept=kept)
                    value = score(kept, row.max_length)
                found.append({"row": name, "way": way, "seed": seed, "scale": chosen.scale, "metric": metric, "value": value})
                chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                sys.stderr.write(f"{name}, {way}, seed {seed}: {metric} {value:.4f}\n")
    sys.stdout.write(table(found) + "\n")


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return a line for each row: the seeds of both sides, and the difference of their means."""
    lines = ["| row | score | hubtune | peer | difference of the means |", "|---|---|---|---|--:|"]
    for name in dict.fromkeys(line["row"] for line in found):
        own = [line for line in found if line["row"] == name]
        ours = [line["value"] for line in own if line["way"] == "hubtune"]
        theirs = [line["value"] for line in own if line["way"] != "hubtune"]
        if ours and theirs:
            shown = [" ".join(f"{value:.4f}" for value in values) for values in (ours, theirs)]
            lines.append(f"| {name} | {own[0]['metric']} | {shown[0]} | {shown[1]} | "
                         f"{statistics.fmean(ours) - statistics.fmean(theirs):+.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
