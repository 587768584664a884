"""Predicted rows that are kept until their file is whole: one Arrow file per window of rows.

Each is written under another name and renamed, so a process that is killed leaves whole parts only.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa

from hubtune.contract import Prediction
from hubtune.errors import ResumeError
from hubtune.files import flush, read_json

MANIFEST = "predictions.json"
PREDICTION = "prediction"
"""Column of a part with a prediction as JSON."""
KEPT = "kept:"
"""Prefix of a part's columns that are kept from the data."""
INPUT = b"input"
"""Metadata of a part: the hash of a stream up to its end."""


class Parts:
    """The parts of one file of predictions, in a folder beside it."""

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f"{out.name}.partial")

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Set down what is predicted, or check that it is what was begun.

        Raises:
            ResumeError: another model, other data or other settings began the file.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            new = path.with_suffix(".new")
            new.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            flush(new)
            new.replace(path)
            return
        hint = f"To predict anew, delete what is kept: rm -r {shlex.quote(str(self.folder))}"
        begun = read_json(path, str(path), hint, ResumeError)
        for name in dict.fromkeys([*manifest, *begun]):
            if begun.get(name) != manifest.get(name):
                raise ResumeError(
                    f"the {name} has changed since the file was begun: "
                    f"{brief(manifest.get(name))} instead of {brief(begun.get(name))}.",
                    where=str(self.folder),
                    hint=f"Put back what was, and the same command goes on. {hint}")

    @property
    def paths(self) -> list[Path]:
        """The finished parts, in the order of the rows."""
        return list(takewhile(Path.exists, map(self.path, count())))

    def path(self, number: int) -> Path:
        """Return the path of a part."""
        return self.folder / f"part-{number:08}.arrow"

    def write(
        self, number: int, kept: pa.Table | None, predictions: Sequence[Prediction], seen: str
    ) -> None:
        """Write a part. kept: columns of the data. seen: hash of a stream up to its end."""
        columns = {} if kept is None else {KEPT + name: kept[name] for name in kept.column_names}
        columns[PREDICTION] = pa.array([json.dumps(found, ensure_ascii=False) for found in predictions],
                                       pa.large_string())
        table = pa.table(columns).replace_schema_metadata({INPUT: seen.encode()})
        path = self.path(number)
        new = path.with_suffix(".new")
        with pa.OSFile(str(new), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        flush(new)
        new.replace(path)

    def remove(self) -> None:
        """Delete the folder, once the file is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)


def read(path: Path) -> tuple[pa.Table, list[Prediction]]:
    """Read a part: the columns that are kept of the data, and the predictions."""
    with pa.OSFile(str(path), "rb") as source:
        table = pa.ipc.open_file(source).read_all()
    predictions = [json.loads(text) for text in table[PREDICTION].to_pylist()]
    kept = table.drop_columns([PREDICTION])
    return kept.rename_columns([name.removeprefix(KEPT) for name in kept.column_names]), predictions


def kept_schema(path: Path) -> pa.Schema:
    """Read the types of the columns that a part keeps of the data."""
    with pa.OSFile(str(path), "rb") as source:
        found = pa.ipc.open_file(source).schema
    return pa.schema([field.with_name(field.name.removeprefix(KEPT))
                      for field in found if field.name != PREDICTION])


def rows_and_input(path: Path) -> tuple[int, str]:
    """Read the number of rows of a part, and the hash of a stream up to its end."""
    with pa.OSFile(str(path), "rb") as source:
        file = pa.ipc.open_file(source)
        rows = sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))
        return rows, (file.schema.metadata or {}).get(INPUT, b"").decode()


def brief(value: Any) -> str:
    """Format a setting for a message; a hash by its beginning."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:20]}..."
