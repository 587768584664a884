"""The conformance kit for data formats: subclass `FormatConformance`, name the format, and run pytest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hubtune.contract import DataFormat
from hubtune.data import sources
from hubtune.data.data_splits import DataSplits
from hubtune.errors import DataError
from hubtune.testing.bench import Failed, ensure, registered
from hubtune.testing.checks import Conformance

ROWS: tuple[Mapping[str, str], ...] = (
    {"text": "a sunny day", "label": "yes"}, {"text": "rain, \"fog\"; and wind", "label": "no"},
    {"text": "NA", "label": "007"}, {"text": "naïve 日本", "label": "yes"},
)
"""Rows with what readers of files get wrong: quotes, separators, texts that look like numbers or like nothing."""


class FormatConformance(Conformance):
    """Every check that a data format has to pass.

        class TestToml(FormatConformance):
            plugin = Toml

            def write(self, path, rows):
                path.write_text(...)
    """

    plugin: ClassVar[type[DataFormat[Any]]]

    @abstractmethod
    def write(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a file of the format that holds these rows."""

    def written(self, name: str = "rows", rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
        """A file with rows, named with the format's first suffix."""
        ensure(self.plugin.suffixes, "it has no suffixes.", '`suffixes`, such as (".toml",)')
        path = Path(self._place.name) / f"{name}{self.plugin.suffixes[0]}"
        self.write(path, rows)
        return path

    def loaded(self, path: Path) -> DataSplits:
        """The rows of a file, as `hubtune train --data` reads them."""
        with registered(self.plugin):
            return sources.load(path)

    def test_it_matches_its_own_files_alone(self) -> None:
        """A file with its suffix is matched; a missing file, a text file and a folder are not."""
        path, other = self.written(), Path(self._place.name) / "notes.unknown-suffix"
        other.write_text("text", encoding="utf-8")
        made = self.made()
        ensure(made.matches(path) is True, f"it does not match '{path.name}'.", "`suffixes`, `matches`")
        for wrong in (other, path.with_stem("missing"), path.parent):
            ensure(not made.matches(wrong), f"it matches '{wrong.name}'.", "`matches`")

    def test_rows_come_back_as_they_were_written(self) -> None:
        """Each cell is what the file says, in order, the same at every call."""
        path = self.written()
        for _ in range(2):
            found = [{key: str(value) for key, value in row.items()} for row in self.loaded(path).splits["train"]]
            ensure(found == list(map(dict, ROWS)), f"the rows {ROWS} became {found}.", "`read`: every cell is its text, in order")

    def test_files_of_a_folder_are_splits(self) -> None:
        """Files named train and test make two splits."""
        folder = Path(self._place.name) / "folder"
        folder.mkdir(exist_ok=True)
        for name in ("train", "test"):
            self.write(folder / f"{name}{self.plugin.suffixes[0]}", ROWS)
        found = {split: len(rows) for split, rows in self.loaded(folder).splits.items()}
        ensure(found == {"train": len(ROWS), "test": len(ROWS)}, f"a folder with train and test gave {found} rows.", "`read`")

    def test_other_rows_have_another_fingerprint(self) -> None:
        """A changed file is told from the old one, which a resumed run refuses."""
        one, other = self.loaded(self.written("one")), self.loaded(self.written("one", ROWS[:3]))
        ensure(one.fingerprint != other.fingerprint, "other rows have the same fingerprint.", "`FileData.files`: name every file that is read")

    def test_a_broken_file_is_an_error_with_a_message(self) -> None:
        """Bytes that are no such file give a DataError that names the file, and no foreign exception."""
        path = Path(self._place.name) / f"broken{self.plugin.suffixes[0]}"
        path.write_bytes(b"\x00\xff\xfe not a file of this kind \x00")
        try:
            self.loaded(path)
        except DataError as error:
            said = f"{error.where or ''} {error.message}"
            ensure(path.name in said, f"the error does not name the file: {said}", "`read`: DataError(..., where=path.name)")
        except Exception as error:  # of the plugin or a library
            raise Failed(f"a broken file gives a {type(error).__name__}: {error}\nLook at: `read`: raise hubtune.DataError") from error
        else:
            ensure(False, "a broken file is read as rows.", "`read`: raise hubtune.DataError")
