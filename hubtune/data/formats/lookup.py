"""Finds the data format of a file or a folder: hubtune's own first, then those of plugins."""

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
"""In the order in which they are asked: a COCO document is a json file too."""


def all_formats() -> Iterator[type[DataFormat[Any]]]:
    """Every format there is. Plugins are loaded only where no built-in format matches."""
    yield from BUILT_IN
    yield from registry.load().formats.values()


def find(path: Path) -> DataFormat[Any] | None:
    """The format of a file or a folder; None where it has none, as a folder of tables has.

    Raises:
        MissingExtra: the format needs a package that is not installed.
    """
    for kind in all_formats():
        if (found := kind()).matches(path):
            if reason := registry.unavailable(kind):
                raise MissingExtra(f"'{path.name}' is read by the data format '{kind.name}', which cannot run here: {reason}")
            return found
    return None


def format_of_split(paths: list[Path]) -> DataFormat[Any]:
    """The one format of all files of a split.

    Raises:
        DataError: a file has none, or they have several.
    """
    formats: dict[str, DataFormat[Any]] = {}
    for path in paths:
        found = find(path)
        if found is None:
            raise DataError(
                f"'{path.name}': unsupported file type. Supported: {listing(supported_suffixes(), 40)}.",
                hint="To read another type, add a data format: a plugin (docs/plugins.md, Data formats) or a module in data/formats/.",
            )
        formats.setdefault(found.name, found)
    if len(formats) > 1:
        raise DataError(f"one split is in several formats: {listing(path.name for path in paths)}.")
    return next(iter(formats.values()))


def supported_suffixes() -> list[str]:
    """The suffixes of all formats, those of tables first."""
    kinds: list[type[DataFormat[Any]]] = [Tables, *all_formats()]
    return list(dict.fromkeys(suffix for kind in kinds for suffix in kind.suffixes))
