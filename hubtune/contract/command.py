"""The base class of subcommands."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hubtune.contract.plugin import OptionsT, Plugin


@dataclass(frozen=True)
class Table:
    """Printed result of a command: a row of cells for each line, and `notes` below the table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str] = ()


class Command(Plugin[OptionsT]):
    """A subcommand `hubtune NAME`. hubtune adds `--json`, `--debug` and `--plugin`, and prints errors as it does its own."""

    @abstractmethod
    def run(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Do the work, and return what `--json` prints. The docstring of an override is the command's help.

        Its parameters are the command's arguments and options, each with a default or without, annotated as
        `Annotated[type, typer.Argument(help=...)]` or `Annotated[type, typer.Option(help=...)]`.
        """

    @abstractmethod
    def table(self, document: dict[str, Any]) -> Table:
        """Return what is printed without `--json`, from what `run` returned."""
