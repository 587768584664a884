"""CoNLL files: each line holds a word and, last, its tag; a blank line ends a sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubtune.contract import DataFormat, FileData
from hubtune.data.files.text import open_text
from hubtune.data.formats.paths import media_column, split_in_path, visible_files
from hubtune.errors import DataError

SUFFIXES = (".conll", ".bio", ".iob", ".iob2")
TAG = re.compile(r"O|[BIESLU]-\S+")
LOOKED_AT = 200
"""Number of lines of a .txt file that are checked for tagged words."""


class Conll(DataFormat[Any]):
    """Sentences as the columns tokens and tags: a file, or a folder of files named by split."""

    contract = 2
    name = "conll"
    summary = "CoNLL files: a word and its tag in each line"
    suffixes = (*SUFFIXES, ".txt")

    def matches(self, path: Path) -> bool:
        """Match a file of tagged words, or a folder with one and without images or sounds."""
        if not path.is_dir():
            return path.is_file() and is_conll(path)
        files = visible_files(path)
        return not any(map(media_column, files)) and any(map(is_conll, files))

    def read(self, paths: Sequence[Path]) -> FileData:
        """Read files, or all CoNLL files of a folder."""
        from datasets import Dataset

        folder = paths[0] if paths[0].is_dir() else None
        splits = dict.fromkeys(paths, "train")
        if folder:
            splits = {path: split_in_path(folder, path)
                      for path in visible_files(folder) if is_conll(path)}
        made: dict[str, dict[str, list[Any]]] = {}
        for path, split in splits.items():
            columns = made.setdefault(split, {"tokens": [], "tags": []})
            for rows, found in zip(columns.values(), sentences(path), strict=True):
                rows += found
        return FileData({split: Dataset.from_dict(columns) for split, columns in made.items()},
                        {f"{split}/{path.name}": path for path, split in splits.items()})


def is_conll(path: Path) -> bool:
    """Tell whether a file holds tagged words: by suffix, or by the first lines of a .txt."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix.lower() != ".txt":
        return False
    try:
        with open_text(path) as file:
            lines = [line.split() for _, line in zip(range(LOOKED_AT), file) if line.strip()]
    except DataError:
        return False
    if len(lines) < 2 or len({len(cells) for cells in lines}) > 1:
        return False
    return all(len(cells) > 1 and (TAG.fullmatch(cells[-1]) or cells[0] == "-DOCSTART-")
               for cells in lines)


def sentences(path: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Read the words and the tags of every sentence."""
    with open_text(path) as file:
        lines = file.read().split("\n")
    tabs = sum("\t" in line for line in lines)
    separator = "\t" if tabs > sum(bool(line.strip()) for line in lines) / 2 else None
    cells = [line.rstrip("\r\n").split(separator) if line.strip() else [] for line in lines]
    usual = Counter(len(line) for line in cells if line).most_common(1)
    width = usual[0][0] if usual else 0
    tokens: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for number, line in enumerate(cells, 1):
        if not line or line[0] == "-DOCSTART-":
            tokens.append([])
            tags.append([])
        elif len(line) == width > 1:
            tokens[-1].append(line[0])
            tags[-1].append(line[-1])
        elif not line[0].startswith("#"):  # a comment
            raise DataError(
                f"line {number} has {len(line)} columns instead of {width}: "
                f"{' '.join(line)[:60]!r}.",
                where=path.name,
                hint="Each line holds a word and, last, its tag; a blank line ends a sentence.")
    kept = [index for index, words in enumerate(tokens) if words]
    if not kept:
        raise DataError("there are no rows in it.", where=path.name)
    return [tokens[index] for index in kept], [tags[index] for index in kept]
