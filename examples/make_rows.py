"""Make the rows that the how-tos train on: `python examples/make_rows.py FOLDER`. They are invented, and the same each time."""

from __future__ import annotations

import csv
import random
import struct
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOPICS = [f"{thing} {problem}" for thing in ("card", "transfer", "account", "app", "cash", "rate") for problem in ("lost", "late", "blocked", "wrong", "cost")]
OPENINGS = ["Hello,", "I think my", "Since Monday the", "Please help:", "Again my", "Why is the"]
ENDINGS = ["and nobody answers.", "as I saw today.", "since my last visit.", "which I did not expect.", "for the third time.", "abroad."]


def write(path: Path, rows: list[tuple[str, str]], header: tuple[str, ...] = ("text", "label")) -> None:
    """Write rows as csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def reviews() -> list[tuple[str, str]]:
    """The reviews that come with hubtune, in another order."""
    with (HERE / "reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rows)
    return rows


def messy() -> list[tuple[str, str]]:
    """Reviews with an empty text, a missing label, labels in two spellings, and copies."""
    rows = reviews()[:200]
    rows[3], rows[8] = ("", rows[3][1]), (rows[8][0], "")
    rows[12], rows[13] = (rows[12][0], f" {rows[12][1]}"), (rows[13][0], rows[13][1].upper())
    return [*rows, *rows[20:24]]


def few() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Sixteen reviews of each label, and all others."""
    chosen: list[tuple[str, str]] = []
    rest: list[tuple[str, str]] = []
    for row in reviews():
        enough = sum(label == row[1] for _, label in chosen) >= 16
        (rest if enough else chosen).append(row)
    return chosen, rest


def many() -> list[tuple[str, str]]:
    """Messages with one of thirty topics."""
    rows = [(f"{opening} {topic} {ending}", topic) for topic in TOPICS for opening in OPENINGS for ending in ENDINGS[:4]]
    random.Random(0).shuffle(rows)
    return rows


def png(colour: tuple[int, int, int], width: int, height: int) -> bytes:
    """Return the file of an image of one colour."""
    lines = (b"\0" + bytes(colour) * width) * height

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def pictures(folder: Path) -> None:
    """Write images of one colour, with a question about each and its answer."""
    folder.mkdir(exist_ok=True)
    colours = {"red": (220, 40, 30), "green": (40, 180, 60), "blue": (30, 60, 220)}
    rows: list[tuple[str, ...]] = []
    for number in range(36):
        name = list(colours)[number % 3]
        colour = tuple(min(255, value + number) for value in colours[name])
        (folder / f"{number}.png").write_bytes(png((colour[0], colour[1], colour[2]), 48 + number % 5, 40 + number % 7))
        rows.append((f"{number}.png", "Which colour is it?", name))
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file_name", "question", "answer"), *rows])


def rare() -> list[tuple[str, str]]:
    """Messages of which one in twenty is urgent."""
    draw = random.Random(0)
    rows = [(f"{draw.choice(OPENINGS)} {draw.choice(TOPICS)} {draw.choice(ENDINGS)} {number}", "normal") for number in range(380)]
    rows += [(f"{draw.choice(OPENINGS)} {draw.choice(TOPICS)}, come at once. {number}", "urgent") for number in range(20)]
    draw.shuffle(rows)
    return rows


def letters() -> list[tuple[str, str]]:
    """Letters of forty reviews each, of which only the last says what is meant."""
    rows, draw = reviews(), random.Random(0)
    others = [text for text, label in rows if label == "neutral"]
    ends = [row for row in rows if row[1] != "neutral"][:120]
    return [(" ".join([*draw.choices(others, k=39), text]), label) for text, label in ends]


def main(folder: str) -> None:
    """Write all files into a folder."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    chosen, rest = few()
    for name, rows in (("messy", messy()), ("few", chosen), ("rest", rest), ("many", many()), ("rare", rare()), ("letters", letters())):
        write(place / f"{name}.csv", rows)
    pictures(place / "pictures")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "rows")
