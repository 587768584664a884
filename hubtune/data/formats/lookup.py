"""Look up the data format of a file or a folder: built-in formats first, then those of plugins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubtune.contract import DataFormat, registry
from hubtune.data.formats.coco import Coco
from hubtune.data.formats.conll import Conll
from hubtune.data.formats.media import Media
from hubtune.data.formats.tables import Tables
from hubtune.errors import DataError, MissingExtra, listing

BUILT_IN: tuple[type[DataFormat[Any]], ...] = (Coco, Conll, Media, Tables)
"""Built-in formats in the order of their `matches`: a COCO document is a json file too."""


def all_formats() -> Iterator[type[DataFormat[Any]]]:
    """Yield all formats. Plugins are loaded only where no built-in format matches."""
    yield from BUILT_IN
    yield from registry.load().formats.values()


def find_format(path: Path) -> DataFormat[Any] | None:
    """Return the format of a file or a folder; None without one, such as for a folder of tables.

    Raises:
        MissingExtra: the format needs a package that is not installed.
    """
    for kind in all_formats():
        if (found := kind()).matches(path):
            if reason := registry.unavailable(kind):
                raise MissingExtra(
                    f"'{path.name}' needs the unavailable data format '{kind.name}': {reason}")
            return found
    return None


def split_format(paths: list[Path]) -> DataFormat[Any]:
    """Return the format of all files of a split.

    Raises:
        DataError: unsupported file type, or several formats.
    """
    formats: dict[str, DataFormat[Any]] = {}
    for path in paths:
        found = find_format(path)
        if found is None:
            raise DataError(
                f"'{path.name}': unsupported file type. Supported: "
                f"{listing(supported_suffixes(), 40)}.",
                hint="To read another type, add a data format: a plugin "
                "(docs/plugins.md, Data formats) or a module in data/formats/.",
            )
        formats.setdefault(found.name, found)
    if len(formats) > 1:
        raise DataError(f"one split is in several formats: {listing(path.name for path in paths)}.")
    return next(iter(formats.values()))


def supported_suffixes() -> list[str]:
    """Return the suffixes of all formats, those of tables first."""
    kinds: list[type[DataFormat[Any]]] = [Tables, *all_formats()]
    return list(dict.fromkeys(suffix for kind in kinds for suffix in kind.suffixes))
