"""Writes the generated pages: `python docs/build.py`, or with `--check` only says whether they are up to date.

The text is in docs/templates; each `<!-- NAME -->` line there is replaced by what the code says of itself.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/build.py from docs/templates/{name} and the code: change those, then run `make docs`. -->\n\n"
PAGES = ("plugins.md", "reference.md")


def main(arguments: list[str]) -> int:
    """Write the pages, or check them. 1: a page differs."""
    os.environ["HUBTUNE_PLUGINS"] = "own"  # what else is installed here is no part of the documentation
    stale = []
    for name in PAGES:
        page = HERE / name
        text = built(name)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                page.write_text(text, encoding="utf-8")
    if "--check" in arguments and stale:
        print(f"Not up to date: {', '.join(stale)}. Write them anew with: make docs", file=sys.stderr)
        return 1
    print(f"written: {', '.join(stale)}" if stale else "up to date")
    return 0


def built(name: str) -> str:
    """A page from its template."""
    template = (HERE / "templates" / name).read_text(encoding="utf-8")

    def part(match: re.Match[str]) -> str:
        return PARTS[match[1]]().strip("\n")

    return NOTE.format(name=name) + re.sub(r"^<!-- ([a-z-]+) -->$", part, template, flags=re.MULTILINE)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(list(head)), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(value: object) -> str:
    """A value as it is written in TOML."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


# ------------------------------------------------------------------------------------------------------- commands


def commands() -> str:
    """Every command with its arguments and options."""
    import typer

    from hubtune.cli.commands import app

    program: Any = typer.main.get_command(app)
    program.list_commands(None)  # adds those of plugins
    said = [f"`hubtune --version`: {next(p.help for p in program.params if '--version' in p.opts)}"]
    for name, command in program.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join(["hubtune", name, *(shape(p) for p in arguments), "[OPTIONS]"])
        rows = [(f"`{shape(p)}`", p.help, "") for p in arguments]
        rows += [(option_shape(p), p.help, default_of(p)) for p in command.params if p.param_type_name == "option"]
        said += [f"### hubtune {name}", command.help, f"```console\n{usage}\n```",
                 table(("", "what it does", "default"), rows)]
    return "\n\n".join(said)


def shape(argument: Any) -> str:
    """An argument as usage lines write it."""
    if argument.metavar:
        return str(argument.metavar)
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def option_shape(option: Any) -> str:
    """An option with the name of its value."""
    name = option.opts[0]
    return f"`{name}`" if option.is_flag else f"`{name} {option.metavar or name.strip('-').upper()}`"


def default_of(option: Any) -> str:
    """The default, where it is a value; what is computed stands in the help."""
    return code(option.default) if option.default not in (None, False, "", ()) else ""


# -------------------------------------------------------------------------------------------------------- recipes


def options_rows(kind: type, prefix: str) -> list[tuple[str, str, str, str]]:
    """A row for each option of a dataclass."""
    from hubtune.cli.listings import options_of

    return [
        (f"`{prefix}.{name}`", said["help"] + (f" ({', '.join(map(str, said['choices']))})" if "choices" in said else ""),
         said["type"], code(said["default"]))
        for name, said in options_of(kind).items()
    ]


HEAD = ("key", "what it is", "kind", "default")


def recipe_keys() -> str:
    """The tables that every recipe has."""
    from hubtune.recipe import DataConfig, ModelConfig, PublishConfig, ReportConfig, TrainConfig

    parts = [
        ("[task]", [("`task.name`", "a task (see: hubtune tasks)", "text", "needed")]),
        ("[strategy]", [("`strategy.name`", "a strategy (see: hubtune strategies)", "text", code("full"))]),
        ("[loss]", [("`loss.name`", "a loss in place of the task's own, for classification tasks (see: hubtune losses)", "text", ""),
                    ("`loss.OPTION`", "an option of that loss, such as `loss.gamma`", "", "")]),
        ("[model]", [("`model.id`", "a Hub id `org/name[@revision]`, or a folder", "text", "needed"),
                     *options_rows(ModelConfig, "model")]),
        ("[data]", [*options_rows(DataConfig, "data"),
                    ("`data.ROLE`", "the column of a role of the task, such as `data.text` and `data.label`", "text",
                     "found by name")]),
        ("[train]", options_rows(TrainConfig, "train")), ("[publish]", options_rows(PublishConfig, "publish")),
        ("[report]", options_rows(ReportConfig, "report")),
    ]
    return "\n\n".join(f"### {name}\n\n{table(HEAD, rows)}" for name, rows in parts)


def task_list() -> str:
    """Every task that comes with hubtune: its columns and options."""
    from hubtune.contract import registry

    said = []
    for name, kind in sorted(registry.load().tasks.items()):
        columns = table(("role", "needed", "column names that are known"), (
            (f"`{c.role}`", {"always": "always", "train": "to train", "never": "no"}[c.needed], ", ".join(c.names))
            for c in kind.columns))
        said += [f"#### {name}", f"{kind.summary[0].upper()}{kind.summary[1:]}. Model class: `{kind.model}`. "
                 f"Deciding metric: {kind.metric.name}.", columns, plugin_options(kind, "task")]
    return "\n\n".join(filter(None, said))


def strategy_list() -> str:
    """Every strategy that comes with hubtune: its paper, recipe values and options."""
    from hubtune.contract import registry

    said = []
    for name, kind in sorted(registry.load().strategies.items()):
        values = ", ".join(f"`{key} = {value}`" for key, value in kind.defaults.items())
        needs = f" It needs the extra `{kind.extra}`." if kind.extra else ""
        said += [f"#### {name}", f"{kind.summary[0].upper()}{kind.summary[1:]}. Its values where the recipe has none: "
                 f"{values or 'none'}.{needs}", f"After: {kind.paper}." if kind.paper else "",
                 plugin_options(kind, "strategy")]
    return "\n\n".join(filter(None, said))


def loss_list() -> str:
    """Every loss that comes with hubtune: its paper and options."""
    from hubtune.contract import registry

    said = []
    for name, kind in sorted(registry.load().losses.items()):
        said += [f"#### {name}", f"{kind.summary[0].upper()}{kind.summary[1:]}. For {' and '.join(kind.kinds)} labels.",
                 f"After: {kind.paper}." if kind.paper else "", plugin_options(kind, "loss")]
    return "\n\n".join(filter(None, said))


def metric_list() -> str:
    """Every metric that comes with hubtune."""
    from hubtune.contract import registry

    return table(("name", "what it is", "labels", "best"), (
        (f"`{name}`", kind.summary, ", ".join(kind.kinds), "highest" if kind.higher_is_better else "lowest")
        for name, kind in sorted(registry.load().metrics.items())))


def plugin_options(kind: Any, prefix: str) -> str:
    """The options of a task or a strategy; empty where it has none."""
    return table(HEAD, options_rows(kind.Options, prefix)) if is_dataclass(kind.Options) and fields(kind.Options) else ""


def defaults_table() -> str:
    """Return what follows from the number of rows, and from the size of the model."""
    from hubtune import defaults

    by_rows = table(("training rows", "epochs", "rows a step"), (
        (f"{rows:,}", f"{defaults.epochs(rows):g}", defaults.batch_size(rows))
        for rows in (50, 200, 1_000, 5_000, 20_000, 50_000, 100_000, 1_000_000)))
    sizes = (4_000_000, 22_000_000, 66_000_000, 110_000_000, 350_000_000, 1_000_000_000, 7_000_000_000)
    by_size = table(("parameters", "factor of the strategy's rate"), (
        (f"{size:,}", f"{defaults.learning_rate(1.0, size):g}") for size in sizes))
    return f"{by_rows}\n\n{by_size}"


# --------------------------------------------------------------------------------------------------------- errors


def error_kinds() -> str:
    """Every kind of error, as `--json` names it."""
    from hubtune import errors

    def below(kind: type[errors.HubtuneError]) -> Iterable[type[errors.HubtuneError]]:
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                yield child
                yield from below(child)

    rows = []
    for kind in below(errors.HubtuneError):
        parent: Any = kind.__bases__[0]
        summary = (kind.__doc__ or "").strip().partition("\n\n")[0]  # Python 3.13 indents what follows it otherwise than 3.11
        rows.append((f"`{kind('').kind}`", f"`{kind.__name__}`", f"`{parent.__name__}`", " ".join(summary.split())))
    return table(("kind", "class", "is a", "what it means"), rows)


# ------------------------------------------------------------------------------------------------------- contract


def contract(wanted: Callable[[ast.stmt], bool]) -> str:
    """The definitions of the contract that are wanted, each with its signature and docstring, in their order."""
    return "\n\n".join(definition(node, 3) for body in contract_bodies() for node in body if wanted(node))


def contract_bodies() -> list[list[ast.stmt]]:
    """Return what stands in the modules that make the contract."""
    core = HERE.parent / "hubtune"
    return [ast.parse((core / name).read_text(encoding="utf-8")).body for name in ("options.py", "contract/types.py", "contract/plugin.py", "contract/functions.py", "contract/task.py",
                                                                           "contract/strategy.py", "contract/data_format.py", "contract/exporter.py", "contract/command.py", "contract/hooks.py")]


def definition(node: Any, level: int) -> str:
    """A class or function in Markdown: heading, signature, docstring, and the members of a class."""
    mark = "#" * level
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        return f"{mark} {node.name}\n\n```python\n{signature(node)}\n```\n\n{text}".rstrip()
    said = [f"{mark} {node.name}", text]
    attributes = list(attributes_of(node))
    if attributes:
        lines = [line for line, _ in attributes]
        said.append("```python\n" + "\n".join(lines) + "\n```")
        said += ["\n".join(f"- `{line.partition(':')[0]}`: {note}" for line, note in attributes if note)]
    said += [definition(child, level + 1) for child in node.body
             if isinstance(child, ast.FunctionDef) and child.name != "__init__"]
    return "\n\n".join(part for part in said if part)


def signature(node: ast.FunctionDef) -> str:
    """The `def` line as it is in the source."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({ast.unparse(node.args)}){returns}"


def attributes_of(node: ast.ClassDef) -> Iterable[tuple[str, str]]:
    """Annotated attributes of a class with the string below them."""
    for index, child in enumerate(node.body):
        if isinstance(child, ast.AnnAssign):
            after = node.body[index + 1] if index + 1 < len(node.body) else None
            note = ast.literal_eval(after.value) if isinstance(after, ast.Expr) and isinstance(
                after.value, ast.Constant) else ""
            yield ast.unparse(child), " ".join(str(note).split())


def kit() -> str:
    """Return what a test class of the conformance kit may say."""
    rows = []
    for module, name, who in (("checks", "Conformance", "all"), ("tasks", "TaskConformance", "tasks"),
                              ("strategies", "StrategyConformance", "strategies")):
        body = ast.parse((HERE.parent / "hubtune" / "testing" / f"{module}.py").read_text(encoding="utf-8")).body
        node = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == name)
        for line, note in attributes_of(node):
            name, _, default = line.partition(" = ")
            if note:
                rows.append((f"`{name.partition(':')[0]}`", who, note, f"`{default}`" if default else "needed"))
    return table(("attribute", "of", "what it is", "default"), rows).replace("`ROWS`", "`16`")


def named(*names: str) -> Callable[[ast.stmt], bool]:
    """Return whether a definition has one of these names."""
    return lambda node: getattr(node, "name", None) in names


CLASSES = {
    "plugin": ("Plugin", "option"),
    "task": ("Task", "ClassificationTask", "ContrastiveTask", "SamplingTask", "ReferenceTask", "GenerativeTask"),
    "functions": ("LossFunction", "MetricFunction"), "command": ("Command", "Table"),
    "strategy": ("Strategy", "StepStrategy", "OptimizerStrategy"), "format": ("DataFormat", "FileData"), "exporter": ("Exporter", "Graph"),
}
"""Parts of the page on plugins, and the definitions that each shows."""


def values(node: ast.stmt) -> bool:
    """Return whether a definition is a class that no other part shows."""
    shown = {"NoOptions", *(name for names in CLASSES.values() for name in names)}
    return isinstance(node, ast.ClassDef) and node.name not in shown


def aliases() -> str:
    """The names of types, with the string below each."""
    rows = []
    for body in contract_bodies():
        for node, after in pairwise(body):
            if isinstance(node, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                rows.append((f"`{ast.unparse(node.targets[0])}`", f"`{ast.unparse(node.value)}`",
                             " ".join(str(after.value.value).split())))
    return table(("name", "is", "meaning"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands, "recipe-keys": recipe_keys, "task-list": task_list, "strategy-list": strategy_list,
    "kit": kit, "defaults-table": defaults_table, "error-kinds": error_kinds, "aliases": aliases,
    "loss-list": loss_list, "metric-list": metric_list, "values": lambda: contract(values),
    **{part: partial(contract, named(*names)) for part, names in CLASSES.items()},
    "hooks": lambda: contract(lambda node: isinstance(node, ast.FunctionDef) and node.name.startswith("hubtune_")),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
