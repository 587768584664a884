"""The base class of data formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hubtune.contract.plugin import OptionsT, Plugin


@dataclass(frozen=True)
class FileData:
    """Rows that a data format read.

    splits: rows by split, each a list of dicts or a `datasets.Dataset`; `{"train": rows}` where the files do not tell
    splits apart. files: every file that was read, by a name that does not depend on where the folder lies: their
    contents are the fingerprint of the data. Default: the paths that were given.
    """

    splits: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


class DataFormat(Plugin[OptionsT]):
    """A kind of file that holds rows, and how to read it."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """File suffixes in lower case, with the dot: `(".xlsx",)`."""

    def matches(self, path: Path) -> bool:
        """Tell whether this format reads a file or a folder. Default: a file with one of the suffixes."""
        return path.suffix.lower() in self.suffixes and path.is_file()

    def read(self, paths: Sequence[Path]) -> FileData:
        """Read the files of one split, in order, or one folder.

        Args:
            paths: files for which `matches` is true; or one folder, where `matches` says that it reads folders.

        Raises:
            DataError: the content cannot be read; `where` names the file.
        """
        raise NotImplementedError
