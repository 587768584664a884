"""Paths: tell the split and the kind of media from the names of files and folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Splits, and the words that the names of their files and folders begin with."""
MEDIA = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
}
COLUMN_OF_SUFFIX = {suffix: column for column, suffixes in MEDIA.items() for suffix in suffixes}


def media_column(path: str | Path) -> str | None:
    """Return `image` or `audio` by the suffix of a file name; None for other files."""
    return COLUMN_OF_SUFFIX.get(Path(path).suffix.lower())


def split_of(name: str) -> str | None:
    """Return the split that a name begins with: `train`, `dev-00000-of-00002`, `test_small`."""
    word = re.split(r"[-_.\s\d]", name.lower(), maxsplit=1)[0]
    return next((split for split, words in SPLITS.items() if word in words), None)


def split_in_path(folder: Path, path: Path) -> str:
    """Return the split that a path in a folder names, its own name first; `train` without one."""
    names = [path.stem, *reversed(path.relative_to(folder).parts[:-1])]
    words = [word for name in names for word in re.split(r"[-_.\s\d]", name) if word]
    return next((split for word in words if (split := split_of(word))), "train")


def visible_files(folder: Path) -> list[Path]:
    """List all files of a folder and its subfolders, sorted, except hidden ones."""
    def is_hidden(path: Path) -> bool:
        return any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)

    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not is_hidden(path)]


def by_relative_path(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Key files by their path relative to the folder, wherever the folder lies."""
    return {path.relative_to(folder).as_posix(): path for path in paths}
