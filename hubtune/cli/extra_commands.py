"""The subcommands of plugins."""

from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup
from typer.models import ArgumentInfo

from hubtune.cli.plugin_commands import AsJson, Debug, PluginFiles, show_json, use_files
from hubtune.contract import Command


class Group(TyperGroup):
    """hubtune's own commands, and after them those of plugins, which are loaded only where one may be meant."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in self.commands.values():
            restore_help(command)

    def add_extra(self) -> None:
        """Add the commands of plugins."""
        from hubtune.contract import registry

        for name, kind in sorted(registry.load(hook="hubtune_commands").commands.items()):
            self.commands.setdefault(name, made(kind, registry.unavailable(kind)))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, hubtune's own first."""
        self.add_extra()
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of these arguments, among the plugin files that they name, too."""
        if args and args[0] not in self.commands:
            files = [after for word, after in pairwise(args) if word == "--plugin"]
            use_files([*files, *(word.partition("=")[2] for word in args if word.startswith("--plugin="))])
            self.add_extra()
        return super().resolve_command(ctx, args)


def made(kind: type[Command[Any]], missing: str | None) -> Any:
    """Return the command of a plugin class. missing: what has to be installed before it can run."""
    command = kind()

    def call(plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False, **arguments: Any) -> None:
        if missing:
            from hubtune.errors import MissingExtra

            raise MissingExtra(f"the command '{kind.name}' cannot run here: {missing}")
        document = command.run(**arguments)
        if as_json:
            show_json(document)
            return
        from hubtune.cli import console

        found = command.table(document)
        console.table(list(found.columns), [list(row) for row in found.rows])
        for note in found.notes:
            console.out(note)

    own = inspect.signature(command.run, eval_str=True)
    added = [parameter for name, parameter in inspect.signature(call, eval_str=True).parameters.items() if name != "arguments"]
    call.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in call.__signature__.parameters.values()}  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                      context_settings={"help_option_names": ["-h", "--help"]})
    app.command(kind.name, help=f"{kind.summary[0].upper()}{kind.summary[1:]}.")(call)
    return restore_help(typer.main.get_command(app))


def restore_help(command: Any) -> Any:
    """Set the help of a command's arguments again, and return the command.

    click 8.5 clears what typer before 0.26 has set; axolotl 0.19 pins such a typer.
    """
    annotations = {name: parameter.annotation
                   for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items()}
    for parameter in command.params:
        if isinstance(parameter, TyperArgument) and parameter.help is None:
            noted = getattr(annotations.get(parameter.name), "__metadata__", ())
            parameter.help = next((one.help for one in noted if isinstance(one, ArgumentInfo)), None)
    return command
