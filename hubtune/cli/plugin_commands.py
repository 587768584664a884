"""The commands about plugins, and the options that all commands share."""

from __future__ import annotations

import enum
import json
import math
import sys
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def use_files(paths: list[str] | None) -> list[str] | None:
    """Register plugin files for all look-ups from here on."""
    from hubtune.contract import local_files

    local_files.use(paths or ())
    return paths


PluginFiles = Annotated[list[str] | None, typer.Option(
    "--plugin", metavar="FILE", callback=use_files, help="A Python file with a plugin; repeatable.")]

TrustCode = Annotated[list[str] | None, typer.Option(
    "--trust-code", metavar="REPO@COMMIT|FOLDER",
    help="Let the code beside a model's weights run, for a model that needs it; repeatable.")]


class PluginKind(enum.StrEnum):
    """The kind of a plugin."""

    TASK = "task"
    STRATEGY = "strategy"
    LOSS = "loss"
    METRIC = "metric"
    FORMAT = "format"
    COMMAND = "command"
    EXPORTER = "exporter"


class Action(enum.StrEnum):
    """The action of `hubtune plugin`."""

    new = "new"


def screen() -> Any:
    """The callbacks that show progress; rich is imported only where something is shown."""
    from hubtune.cli.console import ConsoleCallbacks

    return ConsoleCallbacks()


def show_json(document: Any) -> None:
    """Print a JSON document on stdout; numbers that are not finite, which JSON lacks, become null."""
    sys.stdout.write(json.dumps(finite(document), ensure_ascii=False, default=str) + "\n")


def finite(value: Any) -> Any:
    """Replace numbers that are not finite by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tasks(plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the tasks."""
    from hubtune.cli import listings

    found = listings.tasks()
    show_json(found) if as_json else listings.show(found["tasks"], ["name", "summary", "metric", "plugin"])
    tell_of_set_apart()


def strategies(plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the strategies."""
    from hubtune.cli import listings

    found = listings.strategies()
    show_json(found) if as_json else listings.show(found["strategies"], ["name", "summary", "paper", "reason"])
    tell_of_set_apart()


def losses(plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the losses to choose for classification tasks."""
    from hubtune.cli import listings

    found = listings.losses()
    show_json(found) if as_json else listings.show(found["losses"], ["name", "summary", "kinds", "paper", "reason"])
    tell_of_set_apart()


def metrics(plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the metrics to choose for classification tasks."""
    from hubtune.cli import listings

    found = listings.metrics()
    show_json(found) if as_json else listings.show(found["metrics"], ["name", "summary", "kinds", "plugin", "reason"])
    tell_of_set_apart()


def tell_of_set_apart() -> None:
    """On stderr, the plugins that a list lacks since they cannot be used."""
    from hubtune.contract import registry

    sys.stderr.write("".join(f"not listed: {found.trouble}\n" for found in registry.load().set_apart()))


def plugins(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="[NAME]...", help="With --check: only these tasks and strategies.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Test every task with every strategy (minutes).")] = False,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """List all plugins, broken ones too; or test them with --check."""
    from hubtune.cli import listings

    if names and not check:
        raise typer.BadParameter("names need --check; without it, all plugins are listed.")
    found = listings.checked(names or (), screen()) if check else listings.plugins()
    if as_json:
        show_json(found)
    elif check:
        listings.show_matrix(found)
    else:
        listings.show(listings.with_contents(found["plugins"]), ["name", "contents", "status", "source", "version", "reason"])
    if check and found["counts"]["fail"]:
        raise typer.Exit(1)


def plugin(
    action: Annotated[Action, typer.Argument(help="new: write a package with a plugin and its tests.")],
    name: Annotated[str, typer.Argument(help="The name, such as toxic-spans.")],
    kind: Annotated[PluginKind, typer.Option(help="The kind of plugin.")] = PluginKind.TASK,
    out: Annotated[str | None, typer.Option(help="The folder to write  [default: hubtune-NAME]")] = None,
    as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Start a plugin package: module, tests, packaging, CI."""
    from hubtune.contract.scaffold import distribution

    made = distribution.new(name, kind.value, out)
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
    """Print a commented recipe for a task."""
    from hubtune.cli import listings

    text = listings.commented_recipe(task, model, data, strategy)
    if as_json:
        show_json({"recipe": text})
    else:
        sys.stdout.write(text)
