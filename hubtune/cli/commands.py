"""The command line: parse arguments, call the public API, print the result. Imports nothing heavy at the top."""

from __future__ import annotations

import atexit
import gc
import logging
import sys
import warnings
from typing import Annotated, Any

import typer

from hubtune import environment
from hubtune.cli import (
    data_commands,
    extra_commands,
    plugin_commands,
    prediction_commands,
    terminal,
    verification_commands,
)
from hubtune.cli.plugin_commands import AsJson, Debug, PluginFiles, TrustCode, screen, show_json
from hubtune.devices import host_lock, memory, processes
from hubtune.errors import HubtuneError, PluginError, RecipeError, UnexpectedError, place_of

app = typer.Typer(
    name="hubtune", cls=extra_commands.Group, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune models of the Hugging Face Hub on your data, verify, publish.",
    epilog="Example: hubtune train sentiment --model ORG/NAME --data reviews.csv",
)

Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="KEY=VALUE", help="Set a recipe key, such as train.epochs=3; repeatable.")]


@app.command()
def train(
    task: Annotated[str | None, typer.Argument(help="A task (list: hubtune tasks), or a recipe.toml.")] = None,
    model: Annotated[str | None, typer.Option(help="The pretrained model: org/name[@revision], or a folder.")] = None,
    data: Annotated[str | None, typer.Option(
        help="Rows: a file, a folder, a pattern 'd*.csv', - (standard input), or a Hub data set org/name[:config].")] = None,
    strategy: Annotated[str | None, typer.Option(help="How to tune (list: hubtune strategies)  [default: full]")] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder  [default: runs/TASK-MODEL-STRATEGY-N]")] = None,
    set: Set = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Resume a run that stopped.")] = None,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Publish to this repository after training.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: make a new repository public.")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="With --push: open a pull request.")] = False,
    replace: Annotated[bool, typer.Option(
        "--replace", help="With --push: replace the model on main, also if the new one is not better.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Check data, model and permissions, then stop.")] = False,
    trust_code: TrustCode = None,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Fine-tune a model on your data."""
    import hubtune

    recipe_file = task if task and task.endswith(".toml") else None
    if resume is not None:
        if any((task, model, data, strategy, out, set, push, public, pr, replace, overwrite, check)):
            raise typer.BadParameter("--resume takes no other options but --trust-code, --plugin, --json and --debug: a run keeps its settings.")
        finish(hubtune.resume(resume, trust_code=trust_code, callbacks=screen()), as_json)
        return
    if task is None:
        raise typer.BadParameter("name a task or a recipe.toml. Tasks are listed by: hubtune tasks")
    arguments: dict[str, Any] = {
        "task": None if recipe_file else task, "model": model, "data": data, "strategy": strategy, "set": set or (), "out": out,
        "overwrite": overwrite, "push": push, "public": public, "pr": pr, "replace": replace,
        "recipe": recipe_file, "trust_code": trust_code, "callbacks": screen(),
    }
    if check:
        show_check(hubtune.check(**arguments), as_json)
    else:
        finish(hubtune.train(**arguments), as_json)


def finish(run: Any, as_json: bool) -> None:
    """Print the result of a finished training, in the first of several processes."""
    if not processes.is_first():
        return
    if as_json:
        show_json(run.summary())
        return
    from hubtune.cli import console

    console.finished(run)


def show_check(found: dict[str, Any], as_json: bool) -> None:
    """Print the result of `--check`."""
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    console.checked(found)


@app.command()
def plan(
    task: Annotated[str | None, typer.Argument(help="A task (list: hubtune tasks), or a recipe.toml.")] = None,
    model: Annotated[str | None, typer.Option(help="The pretrained model: org/name[@revision], or a folder.")] = None,
    data: Annotated[str | None, typer.Option(help="Rows, as for train.")] = None,
    strategy: Annotated[str | None, typer.Option(help="How to tune (list: hubtune strategies)  [default: full]")] = None,
    set: Set = None, trust_code: TrustCode = None, plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Estimate time, memory and disk of a training from a few steps."""
    import hubtune

    if task is None:
        raise typer.BadParameter("name a task or a recipe.toml. Tasks are listed by: hubtune tasks")
    recipe_file = task if task.endswith(".toml") else None
    found = hubtune.plan(None if recipe_file else task, model=model, data=data, strategy=strategy, set=set or (), recipe=recipe_file,
                         trust_code=trust_code, callbacks=screen())
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    console.costs(found)


app.command()(prediction_commands.evaluate)
app.command()(prediction_commands.predict)


@app.command()
def publish(
    run: Annotated[str, typer.Argument(help="A finished run.")],
    repo: Annotated[str, typer.Argument(help="The repository: NAME or NAMESPACE/NAME.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; the default is private.")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="Open a pull request.")] = False,
    replace: Annotated[bool, typer.Option(
        "--replace", help="Replace the model on main, also if the new one is not better; do not compare them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare with the model on main, list the files, and publish nothing.")] = False,
    trust_code: TrustCode = None,
    as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Verify a run's model, and publish it to the Hub.

    Where the repository has a model, both are compared on the run's test rows; unless the new one is better, a pull request is opened.
    """
    import hubtune

    done = hubtune.Run(run, trust_code=trust_code).publish(
        repo, public=public, pr=pr, replace=replace, dry_run=dry_run, callbacks=screen())
    if as_json:
        show_json(done)
        return
    from hubtune.cli import console

    console.table(["file", "bytes", "sha256"], [[f["path"], f["size"], f["sha256"][:16]] for f in done["files"]])
    console.out("\nDry run: nothing was published." if dry_run else f"\npublished: {done['pr'] or done['url']}")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A Hub model org/name[@revision], a folder, or a run.")],
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Show a model and the tasks that fit it, or a run's record."""
    import hubtune

    found = hubtune.show(model)
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    if "run" in found:
        console.run(found)
    else:
        console.model(found)


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="Words in the model's name.")],
    task: Annotated[str | None, typer.Option(help="Only models for this task.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The largest number of results.")] = 20,
    as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Search the Hub for models."""
    import hubtune

    found = hubtune.search(" ".join(words), task=task, limit=limit)
    if as_json:
        show_json({"models": found})
        return
    from hubtune.cli import console

    console.table(["model", "task", "downloads", "likes"],
                  [[m["id"], m["pipeline_tag"], m["downloads"], m["likes"]] for m in found])


for command in (data_commands.check, plugin_commands.tasks, plugin_commands.strategies, plugin_commands.losses, plugin_commands.metrics,
                plugin_commands.plugins, plugin_commands.plugin, plugin_commands.recipe,
                verification_commands.verify, verification_commands.reproduce):
    app.command()(command)


def show_version(wanted: bool) -> None:
    """Print the version, for `--version`."""
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"hubtune {version('hubtune')}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options of the program itself."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: success; 1: an error that the user can fix; 2: wrong usage; 128 and a signal's number: stopped.

    Args:
        arguments: None: those of this process, which ends with the command.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    ended: list[int] = []
    # Otherwise Python visits every object of torch and transformers when it ends: a second.
    atexit.register(gc.freeze)
    if arguments is None:
        atexit.register(terminal.leave, ended)
    status = run(given)
    ended.append(status)
    return status


def run(given: list[str]) -> int:
    """Run a command in this process; returns its exit code."""
    if "--debug" not in given:
        warnings.simplefilter("ignore", FutureWarning)  # meant for the libraries' authors, not for our users
    memory.keep_freed_memory()
    memory.keep_few_kernels()
    memory.postpone_collection()
    terminal.open_streams()
    if logging.lastResort:  # writes warnings, such as of requests that are repeated, to stderr
        logging.getLogger("hubtune").addHandler(logging.lastResort)
    try:
        with terminal.interruptible():
            app(given, standalone_mode=True)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except HubtuneError as error:
        if "--debug" in given:
            raise
        return show_failure(error, "--json" in given)
    except terminal.Interrupted as stopped:
        sys.stderr.write("\n".join([str(stopped), *getattr(stopped, "__notes__", ())]) + "\n")
        return stopped.exit_code
    except Exception as error:
        if "--debug" in given:
            raise
        return show_failure(environment.explain(error) or unexpected_error(error), "--json" in given)
    return 0


def unexpected_error(error: Exception) -> UnexpectedError:
    """Describe an exception of no class of ours: its own words, and where it was raised."""
    text = " ".join(str(error).split())[:500]
    return UnexpectedError(
        f"{type(error).__name__}: {text}", where=place_of(error),
        hint="hubtune did not expect this error of its own or of a library's code. The same command with --debug "
        "prints the traceback for a report.")


def show_failure(error: HubtuneError, as_json: bool) -> int:
    """Print an error as one block, and with `as_json` also as a document; return the exit code."""
    if not processes.is_first() and (error.is_shared or (isinstance(error, RecipeError | PluginError) and not host_lock.is_first())):
        return error.exit_code  # every process raised the same error; the first one prints it
    if as_json:
        show_json(error.as_json())
    from hubtune.cli.console import show_error

    show_error(error)
    return error.exit_code
