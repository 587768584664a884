"""Rows of the real data, cut to size and written once, so that every script reads the same files."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import rows as texts
from benchmarks.rows import FOLDER

Lines = list[dict[str, Any]]


def jsonl(path: Path) -> Lines:
    """Return the rows of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:  # by newlines alone: texts hold other ends of lines
        return [json.loads(line) for line in file]


def table(path: Path) -> Lines:
    """Return the rows of a csv."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def labelled(name: str) -> Lines:
    """Return texts with labels, as the measurement of one thread has them."""
    return [{"text": text, "label": label} for text, label in texts.read(name).train]


READ: dict[str, Callable[[], Lines]] = {
    "sentiment_uci": lambda: labelled("sentiment_uci"),
    "banking77": lambda: labelled("banking77"),
    "gsm8k": lambda: labelled("gsm8k_preference"),
    "wnut17": lambda: jsonl(FOLDER / "wnut17" / "train.jsonl"),
    "prompts": lambda: [{"prompt": line["prompt"] + "\n", "completion": line["chosen"]}
                        for line in jsonl(FOLDER / "gsm8k_preference" / "train.jsonl")],
    "preference": lambda: [{**line, "prompt": line["prompt"] + "\n"}
                           for line in jsonl(FOLDER / "gsm8k_preference" / "train.jsonl")],
    "sts2016": lambda: [{**line, "score": float(line["score"])} for line in table(FOLDER / "sts2016" / "train.csv")],
    "translation": lambda: [{"text": line["en"], "target": line["zh"]}
                            for line in table(FOLDER / "tatoeba_en_zh" / "train.csv")],
    "xquad": lambda: jsonl(FOLDER / "xquad_en" / "train.jsonl"),
}
SOURCES = {"gsm8k": "gsm8k_preference", "prompts": "gsm8k_preference", "preference": "gsm8k_preference",
           "translation": "tatoeba_en_zh", "xquad": "xquad_en", "digits": "digits_png", "speech": "spoken_digits"}
"""Folders of the data that are not named as the row."""


def present(name: str) -> bool:
    """Return whether the data are on this machine."""
    return (FOLDER / SOURCES.get(name, name)).is_dir()


def make(name: str, count: int, cache: Path) -> Path:
    """Return the folder with so many rows of train and a tenth as many of validation, at least 16."""
    folder = cache / "data" / f"{name}-{count}"
    if not folder.is_dir():
        unfinished = folder.with_name(folder.name + ".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        splits = {"train": count, "validation": max(16, count // 10)}
        if name == "digits":
            files = sorted((FOLDER / "digits_png" / "train").glob("*/*.png"))
            for split, chosen in cut(files, splits, name):
                for path in chosen:
                    copy(path, unfinished / split / path.parent.name / path.name)
        elif name == "speech":
            for split, chosen in cut(table(FOLDER / "spoken_digits" / "train" / "metadata.csv"), splits, name):
                sounds(chosen, unfinished / split)
        else:
            for split, chosen in cut(READ[name](), splits, name):
                unfinished.mkdir(parents=True, exist_ok=True)
                with (unfinished / f"{split}.jsonl").open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in chosen)
        unfinished.rename(folder)
    return folder


def cut(every: list[Any], splits: dict[str, int], name: str) -> Iterable[tuple[str, list[Any]]]:
    """Yield train and then validation with their rows, the same ones every time.

    Labels of validation are those of train: hubtune refuses others, and few rows miss some of many labels.
    Raises ValueError where there are too few.
    """
    drawn = random.Random(0).sample(every, len(every))
    train, rest = drawn[:splits["train"]], drawn[splits["train"]:]
    known = {label_of(row) for row in train}
    validation = [row for row in rest if label_of(row) in known][:splits["validation"]]
    if len(train) + len(validation) < sum(splits.values()):
        raise ValueError(f"{name} has {len(every)} rows, of which {len(train) + len(validation)} serve, "
                         f"but {sum(splits.values())} are needed")
    yield "train", train
    yield "validation", validation


def label_of(row: Any) -> object:
    """Return the label of a row, the folder of a file, or None where a row has no label."""
    if isinstance(row, Path):
        return row.parent.name
    return row.get("label") if isinstance(row, dict) else None


def copy(path: Path, to: Path) -> None:
    """Copy a file into a folder that may be new."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def sounds(chosen: Lines, folder: Path) -> None:
    """Write recordings at 16 kHz, since no script should be measured by its resampling."""
    import numpy as np
    import soundfile

    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "transcription"))
        for line in chosen:
            sound, rate = soundfile.read(FOLDER / "spoken_digits" / "train" / line["file_name"], dtype="float32")
            times = np.arange(0, len(sound), rate / 16_000)
            soundfile.write(folder / line["file_name"], np.interp(times, np.arange(len(sound)), sound), 16_000)
            writer.writerow((line["file_name"], line["transcription"]))
