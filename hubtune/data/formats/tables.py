"""Tables that `datasets` reads: csv, tsv, json, jsonl and parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubtune import environment, guest
from hubtune.contract import DataFormat, FileData
from hubtune.data import cache
from hubtune.data.formats.paths import media_column
from hubtune.errors import DataError, listing

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


class Tables(DataFormat[Any]):
    """Tables with a header. All cells of a csv file are kept as text."""

    contract = 2
    name = "tables"
    summary = "csv, tsv, json, jsonl and parquet files"
    suffixes = tuple(FORMATS)

    def read(self, paths: Sequence[Path]) -> FileData:
        """Read the files of one split."""
        for path in paths:
            if not path.stat().st_size:
                raise DataError("the file is empty: it has no header and no rows.", where=path.name)
        return FileData({"train": with_media_paths(read_split(paths), paths)})


def with_media_paths(rows: Any, paths: Sequence[Path]) -> Any:
    """Replace columns with names of images or sounds, relative to the table, by their paths."""
    folder = paths[0].parent
    for column in rows.column_names:
        first = rows[0][column]
        if isinstance(first, str) and media_column(first) and (folder / first).is_file():
            values = [str(folder / value) if value else value for value in rows[column]]
            rows = rows.remove_columns(column).add_column(column, values)
    return rows


def read_split(paths: Sequence[Path]) -> Any:
    """Read one split from its files, all of one format, as a `datasets.Dataset`."""
    kinds = {FORMATS[path.suffix.lower()] for path in paths}
    if len(kinds) > 1:
        raise DataError(f"one split is in several formats: {listing(path.name for path in paths)}.")
    kind = kinds.pop()
    for path in paths:
        refuse_encoding(path, kind)
    more = csv_arguments(paths) if kind == "csv" else {}
    import datasets

    quiet(datasets)
    try:
        names = [str(path) for path in paths]
        made = datasets.load_dataset(kind, data_files=names, split="train",
                                     cache_dir=cache.folder(), **more)
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        if problem := environment.explain(error):
            raise problem from error
        cause = error.__cause__ or error
        if "corresponds to no data" in str(cause):
            raise DataError("there are no rows in it.",
                            where=listing(path.name for path in paths)) from error
        raise DataError(
            f"cannot be read as {kind}: {' '.join(str(cause).split())[:300]}",
            where=listing(path.name for path in paths)) from error
    if not len(made):
        raise DataError("there are no rows in it.", where=listing(path.name for path in paths))
    return made


def csv_arguments(paths: Sequence[Path]) -> dict[str, Any]:
    """Read every column as text, so that `NA`, `null` and `007` are preserved."""
    from datasets import Features, Value

    headers = {path: header(path) for path in paths}
    names, delimiter = headers[paths[0]]
    for path, (others, _) in headers.items():
        if others != names:
            raise DataError(f"its columns {others} differ from those of {paths[0].name}: {names}.",
                            where=path.name)
    return {
        "features": Features({name: Value("string") for name in names}),
        "keep_default_na": False, "delimiter": delimiter, "encoding": "utf-8-sig",
    }


def refuse_encoding(path: Path, kind: str) -> None:
    """Refuse text that is not UTF-8, before a library fails while reading it."""
    if kind == "parquet":
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError as error:
        raise DataError(
            f"it is not UTF-8 ({error.reason}).", where=path.name,
            hint=f"Convert it with: iconv -f LATIN1 -t UTF-8 {path.name} > utf8-{path.name}",
        ) from None


def header(path: Path) -> tuple[list[str], str]:
    """Return the column names of a table, and its delimiter."""
    csv.field_size_limit(2**31 - 1)  # the default limit is 131,072 characters per cell
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline()
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=line.count)
        first = next((cells for cells in csv.reader(file, delimiter=delimiter) if cells), [])
    names = next(csv.reader([line], delimiter=delimiter), [])
    twice = {name for name in names if names.count(name) > 1}
    if twice or not any(name.strip() for name in names):
        repeated = f"the header repeats {listing(sorted(twice))}"
        what = repeated if twice else "there is no header line"
        raise DataError(f"{what}: {names}.", where=path.name)
    if len(first) > len(names):  # pandas would use the first column as an index
        raise DataError(f"its first row has {len(first)} cells, but its header has {len(names)}.",
                        where=path.name)
    return names, delimiter


def quiet(datasets: Any) -> None:
    """Disable the progress bars of `datasets` until the current API call ends."""
    if datasets.are_progress_bars_disabled():
        return
    datasets.disable_progress_bars()
    guest.defer(datasets.enable_progress_bars)
