"""The commands about plugins, and the options that all commands share."""

from __future__ import annotations

import enum
import json
import sys
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def use_files(paths: list[str] | None) -> list[str] | None:
    """Plugins in files are found by whoever looks for plugins from here on."""
    from hubtune.contract import local_files

    local_files.use(paths or ())
    return paths


PluginFiles = Annotated[list[str] | None, typer.Option(
    "--plugin", metavar="FILE", callback=use_files, help="A Python file with a plugin, beside those installed.")]


class PluginKind(enum.StrEnum):
    """What a plugin brings."""

    task = "task"
    strategy = "strategy"


class Action(enum.StrEnum):
    """What `hubtune plugin` does."""

    new = "new"


def screen() -> Any:
    """The callbacks that show progress; rich is imported only where something is shown."""
    from hubtune.cli.console import ConsoleCallbacks

    return ConsoleCallbacks()


def show_json(document: Any) -> None:
    """The one document on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")


def tasks(plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the tasks there are."""
    from hubtune.cli import listings

    found = listings.tasks()
    show_json(found) if as_json else listings.show(found["tasks"], ["name", "summary", "metric", "plugin"])
    tell_of_set_apart()


def strategies(plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the strategies there are."""
    from hubtune.cli import listings

    found = listings.strategies()
    show_json(found) if as_json else listings.show(found["strategies"], ["name", "summary", "paper", "reason"])
    tell_of_set_apart()


def tell_of_set_apart() -> None:
    """On stderr, the plugins that a list lacks since they cannot be used."""
    from hubtune.contract import registry

    sys.stderr.write("".join(f"not listed: {found.trouble}\n" for found in registry.load().set_apart()))


def plugins(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="[NAME]...", help="With --check: only these tasks and strategies, each with all others.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Try every task with every strategy on tiny models (minutes).")] = False,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """List the plugins there are, the broken ones too; or try them all."""
    from hubtune.cli import listings

    if names and not check:
        raise typer.BadParameter("names choose what --check tries; without it, all plugins are listed.")
    found = listings.checked(names or (), screen()) if check else listings.plugins()
    if as_json:
        show_json(found)
    elif check:
        listings.show_matrix(found)
    else:
        listings.show(found["plugins"], ["name", "status", "source", "version", "reason"])
    if check and found["counts"]["fail"]:
        raise typer.Exit(1)


def plugin(
    action: Annotated[Action, typer.Argument(help="new: write a distribution with a plugin that passes its own tests.")],
    name: Annotated[str, typer.Argument(help="The task's or strategy's name, such as toxic-spans.")],
    kind: Annotated[PluginKind, typer.Option(help="What it brings.")] = PluginKind.task,
    out: Annotated[str | None, typer.Option(help="The folder to write.  [default: hubtune-NAME]")] = None,
    as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Begin a plugin of your own: module, conformance test, packaging, README and CI."""
    from hubtune.contract import scaffold

    made = scaffold.new(name, kind.value, out)
    if as_json:
        show_json(made)
        return
    sys.stdout.write("".join(f"{made['folder']}/{path}\n" for path in made["files"]))
    sys.stdout.write(f"\nnext:   cd {made['folder']} && pip install -e '.[dev]' && python -m pytest\n")


def recipe(
    task: Annotated[str, typer.Argument(help="A task (see: hubtune tasks).")],
    model: Annotated[str, typer.Option(help="The model to write into it.")] = "",
    data: Annotated[str, typer.Option(help="The data to write into it.")] = "",
    strategy: Annotated[str, typer.Option(help="How to tune.")] = "full",
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Write a commented recipe for a task to stdout."""
    from hubtune.cli import listings

    text = listings.commented_recipe(task, model, data, strategy)
    if as_json:
        show_json({"recipe": text})
    else:
        sys.stdout.write(text)
