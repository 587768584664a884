"""The command that reports what is in the data."""

from __future__ import annotations

from typing import Annotated

import typer

from hubtune.cli.plugin_commands import AsJson, Debug, PluginFiles, TrustCode, screen, show_json


def check(
    data: Annotated[str, typer.Argument(help="Rows: a file, a folder, a Hub data set org/name[:config], or a recipe.toml.")],
    task: Annotated[str | None, typer.Option(help="The task that reads them (list: hubtune tasks).")] = None,
    model: Annotated[str | None, typer.Option(help="Also check this model with them, and the lengths of the rows.")] = None,
    strategy: Annotated[str | None, typer.Option(help="With --model: how to tune.")] = None,
    set: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a recipe key, such as data.label=COLUMN; repeatable.")] = None,
    label_errors: Annotated[bool, typer.Option(
        "--label-errors", help="Also list likely wrong labels, by --model's features or else by the texts (extra: labels).")] = False,
    trust_code: TrustCode = None,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Report all that is found in your data."""
    import hubtune

    recipe = data if data.endswith(".toml") else None
    if task is None and recipe is None:
        raise typer.BadParameter("name the task that reads the data: --task TASK. Tasks are listed by: hubtune tasks")
    found = hubtune.data_report(task, data=None if recipe else data, model=model, strategy=strategy, set=set or (),
                                recipe=recipe, trust_code=trust_code, label_errors=label_errors, callbacks=screen())
    if as_json:
        show_json(found)
    else:
        from hubtune.cli import console

        for line in found["text"]:
            console.out(line)
    if found["refused"]:
        raise typer.Exit(1)
