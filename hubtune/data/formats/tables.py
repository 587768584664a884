"""Tables: csv, tsv, txt with tabs, json, jsonl and parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubtune import environment
from hubtune.contract import DataFormat, FileData
from hubtune.data import cache
from hubtune.data.files.packed import new_folder
from hubtune.data.files.text import current, open_text, original
from hubtune.data.formats import csv_rows, json_rows
from hubtune.data.formats.paths import media_column
from hubtune.errors import DataError, listing

FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".json": "json", ".jsonl": "json",
           ".parquet": "parquet"}


class Tables(DataFormat[Any]):
    """Tables with a header. All cells of a csv file are kept as text."""

    contract = 2
    name = "tables"
    summary = "csv, tsv, json, jsonl and parquet files; txt files with tabs, as Excel saves them"
    suffixes = tuple(FORMATS)

    def matches(self, path: Path) -> bool:
        """Match a suffix, and of .txt files those whose first line has a tab."""
        return super().matches(path) and (path.suffix.lower() != ".txt" or has_tabs(path))

    def read(self, paths: Sequence[Path]) -> FileData:
        """Read the files of one split."""
        for path in paths:
            if not path.stat().st_size:
                raise DataError(
                    "the file is empty: it has no header and no rows.", where=path.name, hint=(
                        "Save or download it again; or name another file with: --data FILE"))
        return FileData({"train": with_media_paths(read_split(paths), paths)})


def has_tabs(path: Path) -> bool:
    """Tell whether the first line of a text file has a tab; also true of one that is no text."""
    try:
        with open_text(path) as file:
            return "\t" in file.readline(1 << 20)
    except DataError:
        return True  # reading it says what it is


def with_media_paths(rows: Any, paths: Sequence[Path]) -> Any:
    """Replace columns with names of images or sounds, or lists of them, relative to the table, by their paths."""
    folder = original(paths[0]).parent
    for column in rows.column_names:
        if names_media(rows[0][column], folder):
            values = [placed(value, folder) for value in rows[column]]
            rows = rows.remove_columns(column).add_column(column, values)
    return rows


def names_media(value: Any, folder: Path) -> bool:
    """Tell whether a value names an image or a sound in a folder, or is a list that begins with one."""
    if isinstance(value, list) and value:
        return names_media(value[0], folder)
    return isinstance(value, str) and media_column(value) is not None and (folder / value).is_file()


def placed(value: Any, folder: Path) -> Any:
    """Return the path of a file's name in a folder; of a list, those of all its names."""
    if isinstance(value, list):
        return [placed(one, folder) for one in value]
    return str(folder / value) if value else value


def read_split(paths: Sequence[Path]) -> Any:
    """Read one split from its files, all of one format, as a `datasets.Dataset`."""
    kinds = {FORMATS[path.suffix.lower()] for path in paths}
    if len(kinds) > 1:
        raise DataError(f"one split is in several formats: {listing(path.name for path in paths)}.")
    kind = kinds.pop()
    if kind == "csv":
        made, lines = csv_rows.read_tables(paths)
        current().lines[tuple(paths)] = lines
        return made
    if kind == "parquet":
        return load(kind, paths, paths)
    files, lines, columns = json_rows.prepare(paths)
    if not lines.count:
        raise DataError("there are no rows in it.", where=listing(path.name for path in paths))
    current().lines[tuple(paths)] = lines
    try:
        return load(kind, files, paths)
    except DataError as error:
        raise json_rows.explain(columns, lines) or error from error


def load(kind: str, files: Sequence[Path], paths: Sequence[Path]) -> Any:
    """Load files with `datasets`.

    Args:
        files: what is read; cached in its own folder where it is a temporary copy.
        paths: the user's files, for messages.
    """
    import datasets

    where = listing(path.name for path in paths)
    more: dict[str, Any] = {"cache_dir": cache.folder()}
    if any(file not in paths for file in files) or any(path in current().copies.values() for path in paths):
        more["cache_dir"] = str(new_folder())
    if kind == "json":
        more |= json_rows.plain_settings()
    try:
        with json_rows.silent(datasets):
            made = datasets.load_dataset(
                kind, data_files=[str(file) for file in files], split="train", **more)
    except Exception as error:  # its readers raise what pyarrow, pandas and fsspec do
        if problem := environment.explain(error):
            raise problem from error
        cause = error.__cause__ or error
        if "corresponds to no data" in str(cause):
            raise DataError("there are no rows in it.", where=where) from error
        raise DataError(f"cannot be read as {kind}: {' '.join(str(cause).split())[:300]}",
                        where=where) from error
    if not len(made):
        raise DataError("there are no rows in it.", where=where)
    return made
