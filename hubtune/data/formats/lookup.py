"""Look up the data format of a file or a folder: built-in formats first, then those of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from hubtune.contract import DataFormat, registry
from hubtune.data.files import packed
from hubtune.data.formats.coco import Coco
from hubtune.data.formats.conll import Conll
from hubtune.data.formats.media import Media
from hubtune.data.formats.tables import Tables
from hubtune.errors import DataError, MissingExtra, listing

BUILT_IN: tuple[type[DataFormat[Any]], ...] = (Coco, Conll, Media, Tables)
"""Built-in formats in the order of their `matches`: a COCO document is a json file too."""

WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods", ".numbers")
ADVICE = {
    **dict.fromkeys(WORKBOOKS, "Open it in its program, and save the sheet as CSV UTF-8 or .xlsx."),
    **dict.fromkeys((".pkl", ".pickle"), "Loading a pickle can run code, so it is not read. Write "
                    "its rows with: pandas.read_pickle(FILE).to_parquet('rows.parquet')"),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro", ".h5", ".hdf5", ".npy", ".npz", ".db",
                     ".sqlite"), "Write its rows to a .parquet or .jsonl file, and give that."),
    ".txt": "A .txt file is read if it has tabs between its columns, with their names in the first "
            "line, or tagged words (CoNLL). Texts alone: put a line 'text' before them, and call "
            "the file .tsv.",
}
"""Advice for files of a type that is not read, by suffix."""


def plugin_formats() -> list[type[DataFormat[Any]]]:
    """Load the data formats of plugins."""
    return list(registry.load().formats.values())


def find_format(
    path: Path, plugins: Callable[[], list[type[DataFormat[Any]]]] = plugin_formats
) -> DataFormat[Any] | None:
    """Return the format of a file or a folder; None without one, such as for a folder of tables.

    Args:
        path: The file or folder.
        plugins: Gives the formats of plugins; called only where no built-in format matches.

    Raises:
        MissingExtra: the format needs a package that is not installed.
    """
    found = first_match(BUILT_IN, path) or first_match(plugins(), path)
    if found and (reason := registry.unavailable(type(found))):
        is_book = path.suffix.lower() in WORKBOOKS
        raise MissingExtra(
            f"'{path.name}' is read by the data format '{found.name}', "
            f"which cannot run here: {reason}",
            hint="Or save the sheet as CSV UTF-8, and give that file." if is_book else None)
    return found


def first_match(
    kinds: Iterable[type[DataFormat[Any]]], path: Path
) -> DataFormat[Any] | None:
    """Return the first of some formats that reads a path."""
    return next((made for kind in kinds if (made := kind()).matches(path)), None)


def with_format(paths: Iterable[Path]) -> list[Path]:
    """Select the files that have a format; plugins are loaded once for all of them."""
    plugins = cache(plugin_formats)
    return [path for path in paths if find_format(path, plugins)]


def split_format(paths: list[Path]) -> DataFormat[Any]:
    """Return the format of all files of a split.

    Raises:
        DataError: unsupported file type, or several formats.
    """
    formats: dict[str, DataFormat[Any]] = {}
    plugins = cache(plugin_formats)
    for path in paths:
        found = find_format(path, plugins)
        if found is None:
            raise DataError(
                f"'{path.name}': unsupported file type. Supported: "
                f"{listing((*supported_suffixes(), *packed.SUFFIXES), 40)}.",
                hint=ADVICE.get(path.suffix.lower()) or "To read another type, add a data format: "
                "a plugin (docs/plugins.md, Data formats) or a module in data/formats/.",
            )
        formats.setdefault(found.name, found)
    if len(formats) > 1:
        raise DataError(f"one split is in several formats: {listing(path.name for path in paths)}.")
    return next(iter(formats.values()))


def supported_suffixes() -> list[str]:
    """Return the suffixes of all formats, those of tables first."""
    kinds: list[type[DataFormat[Any]]] = [Tables, *BUILT_IN, *plugin_formats()]
    return list(dict.fromkeys(suffix for kind in kinds for suffix in kind.suffixes))
