"""The conformance kit for commands: subclass `CommandConformance`, name the command, and run pytest."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any, ClassVar

from hubtune.cli import commands
from hubtune.cli.extra_commands import made
from hubtune.contract import Command
from hubtune.testing.bench import ensure, registered
from hubtune.testing.checks import Conformance


class CommandConformance(Conformance):
    """Every check that a command has to pass.

        class TestCount(CommandConformance):
            plugin = Count

            def arguments(self, folder):
                return [str(write_rows(folder))]
    """

    plugin: ClassVar[type[Command[Any]]]

    def arguments(self, folder: Path) -> list[str]:
        """Return arguments that the command works with. folder: for files that they name. Default: none."""
        return []

    def called(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `hubtune NAME ARGUMENTS`."""
        out, err = io.StringIO(), io.StringIO()
        with registered(self.plugin), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = commands.main([self.plugin.name, *arguments])
        return code, out.getvalue(), err.getvalue()

    def test_every_argument_says_what_it_does(self) -> None:
        """Each argument and option has a line of help."""
        found: Any = made(self.plugin, None)
        silent = [parameter.name for parameter in found.params if not getattr(parameter, "help", None)]
        ensure(not silent, f"no help for: {', '.join(silent)}.", '`run`: Annotated[type, typer.Option(help="...")]')
        code, out, _ = self.called("--help")
        ensure(code == 0 and "--json" in out, f"--help ends with {code}: {out}", "`run`: its annotations")

    def test_its_summary_fits_a_line_of_help(self) -> None:
        """`hubtune --help` shows it on one line of 80 columns."""
        room = 80 - 4 - max(len(self.plugin.name), len("strategies"))
        ensure(len(self.plugin.summary) < room, f"its summary has {len(self.plugin.summary)} characters; {room - 1} fit.", "`summary`")

    def test_it_prints_a_document_and_a_table(self) -> None:
        """With --json one JSON document, and without it a table of the same."""
        place = Path(self._place.name)
        code, out, err = self.called(*self.arguments(place), "--json")
        ensure(code == 0, f"it ends with {code}: {err}", "`run`, or `arguments` of the test class")
        ensure(out.count("\n") == 1 and isinstance(json.loads(out), dict), f"--json prints {out!r}.", "`run`: return a dict of JSON values")
        code, out, err = self.called(*self.arguments(place))
        ensure(code == 0 and out.strip(), f"without --json it ends with {code}, and prints {out!r} {err}", "`table`")

    def test_wrong_usage_is_two(self) -> None:
        """An option that it does not have ends with 2, as of every command."""
        ensure(self.called("--no-such-option")[0] == 2, "a wrong option does not end with 2.", "`run`")
