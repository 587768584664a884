"""Tagged words from CoNLL files: a line holds a word and, last, its tag; a blank line ends a sentence."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hubtune.errors import DataError

SUFFIXES = (".conll", ".bio", ".iob", ".iob2")
TAG = re.compile(r"O|[BIESLU]-\S+")
LOOKED_AT = 200
"""Lines of a .txt file that tell whether its words are tagged."""


def is_conll(path: Path) -> bool:
    """Whether a file holds a word and its tag in every line: by its name, or a .txt by its first lines."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix.lower() != ".txt":
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = [line.split() for _, line in zip(range(LOOKED_AT), file) if line.strip()]
    return len(lines) > 1 and len({len(cells) for cells in lines}) == 1 and all(
        len(cells) > 1 and (TAG.fullmatch(cells[-1]) or cells[0] == "-DOCSTART-") for cells in lines)


def sentences(path: Path) -> tuple[list[list[str]], list[list[str]]]:
    """The words and the tags of every sentence of a CoNLL file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 ({error.reason}).", where=path.name,
                        hint=f"Convert it with: iconv -f LATIN1 -t UTF-8 {path.name} > utf8-{path.name}") from None
    separator = "\t" if sum("\t" in line for line in lines) > sum(bool(line.strip()) for line in lines) / 2 else None
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
            raise DataError(f"line {number} has {len(line)} columns, and the others {width}: {' '.join(line)[:60]!r}.",
                            where=path.name, hint="A line holds a word and, last, its tag; a blank line ends a sentence.")
    kept = [index for index, words in enumerate(tokens) if words]
    if not kept:
        raise DataError("there are no rows in it.", where=path.name)
    return [tokens[index] for index in kept], [tags[index] for index in kept]
