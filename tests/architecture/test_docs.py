"""Documentation: the generated pages follow the code, quoted code is the code, and links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from hubtune import errors
from hubtune.cli.commands import app
from hubtune.contract import ClassificationTask, Command, DataFormat, Exporter, Strategy, Task, registry
from hubtune.contract.class_checks import KINDS
from hubtune.recipe import DataConfig, PublishConfig, ReportConfig, TrainConfig

REPO = Path(__file__).resolve().parents[2]
DOCS, PLUGINS = REPO / "docs", REPO / "examples" / "plugins"
PAGES = sorted([*DOCS.glob("*.md"), *(DOCS / "how-to").glob("*.md"), *REPO.glob("*.md"), *(REPO / "examples").rglob("*.md")])


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next heading of its level or above."""
    level = heading.index(" ")
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


def test_the_page_on_security_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text_of("security.md"))
    assert len(named) > 20
    missing = [f"{path}::{name}" for path, name in named
               if not (REPO / path).is_file() or (name and f"def {name}(" not in (REPO / path).read_text(encoding="utf-8"))]
    assert missing == []


# ------------------------------------------------------------------------------------------------ generated pages


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, DOCS / "build.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["plugins.md", "reference.md"])
def test_every_row_of_a_table_is_one_line(name: str) -> None:
    text = re.sub(r"^```.*?^```$", "", text_of(name), flags=re.MULTILINE | re.DOTALL)
    rows = [line for line in text.splitlines() if line.startswith("|") or line.rstrip().endswith("|")]
    assert len(rows) > 20
    assert [line for line in rows if not re.fullmatch(r"\|.*\|", line)] == []


def test_every_command_and_option_is_documented() -> None:
    program: Any = typer.main.get_command(app)
    assert "compare" in program.list_commands(None)
    reference = section(text_of("reference.md"), "## Commands")
    for name, command in program.commands.items():
        said = section(reference, f"### hubtune {name}")
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert re.search(rf"^\| `{parameter.opts[0]}[ `]", said, re.MULTILINE), f"{name} {parameter.opts[0]}"


def test_every_recipe_key_is_documented() -> None:
    reference = section(text_of("reference.md"), "## Recipes")
    keys = [f"{table}.{item.name}" for table, part in (("data", DataConfig), ("train", TrainConfig), ("publish", PublishConfig), ("report", ReportConfig))
            for item in fields(part) if item.name != "columns"]
    assert [key for key in [*keys, "task.name", "strategy.name", "model.id"] if f"| `{key}` |" not in reference] == []


def test_every_task_and_strategy_of_our_own_is_documented_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBTUNE_PLUGINS", "own")
    reference = section(text_of("reference.md"), "## Tasks and strategies")
    plugins = registry.load()
    for table, heading, kinds in (("task", "### Tasks", plugins.tasks), ("strategy", "### Strategies", plugins.strategies)):
        for name, kind in kinds.items():
            said = section(section(reference, heading), f"#### {name}")
            assert [item.name for item in fields(kind.Options) if f"| `{table}.{item.name}` |" not in said] == []


def test_every_kind_of_error_is_documented() -> None:
    said = section(text_of("reference.md"), "## Errors")
    kinds = [value for value in vars(errors).values()
             if isinstance(value, type) and issubclass(value, errors.HubtuneError) and value is not errors.HubtuneError]
    assert kinds
    assert [kind.__name__ for kind in kinds if f"| `{kind('').kind}` | `{kind.__name__}` |" not in said] == []


def test_every_command_that_prints_json_has_its_shape_documented() -> None:
    program: Any = typer.main.get_command(app)
    assert "compare" in program.list_commands(None)
    said = section(text_of("reference.md"), "## What --json prints")
    assert [name for name in program.commands if f"| `{name}` |" not in said] == []


def test_every_environment_variable_that_is_read_is_documented() -> None:
    said = section(text_of("reference.md"), "## Environment variables")
    code = "\n".join(path.read_text(encoding="utf-8") for path in (REPO / "hubtune").rglob("*.py")
                     if "testing" not in path.parts)
    read = set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"", code))
    assert sorted(name for name in read if f"`{name}`" not in said) == []


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_method_of_the_contract_is_documented(kind: type) -> None:
    page = text_of("plugins.md")
    methods = [name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")]
    said = section(page, {
        Task: "## Tasks", Strategy: "## Strategies", DataFormat: "## Data formats", Exporter: "## Exporters", Command: "## Commands",
    }.get(kind, "## Losses and metrics"))
    assert [name for name in methods if f"#### {name}\n" not in said or f"def {name}(" not in said] == []


def test_every_hook_is_documented() -> None:
    from hubtune.contract import hooks as contract

    said = section(text_of("plugins.md"), "## Hooks")
    hooks = [name for name in vars(contract) if name.startswith("hubtune_")]
    assert hooks == [f"hubtune_{kind}" for kind in KINDS]
    assert [name for name in hooks if f"### {name}\n" not in said or f"def {name}(" not in said] == []


def test_every_attribute_of_the_contract_is_documented() -> None:
    from hubtune.contract import Plugin

    page = text_of("plugins.md")
    names = [name for kind in (Plugin, ClassificationTask, *KINDS.values()) for name in kind.__annotations__]
    assert len(names) > 20
    assert [name for name in names if f"\n{name}: " not in page] == []


# ---------------------------------------------------------------------------------------------------- quoted code


def quoted() -> list[tuple[str, str]]:
    """(file, block) for each block of the tutorial that quotes a file."""
    return re.findall(r"^<!-- ([\w/.]+) -->\n```\w+\n(.*?)^```$", text_of("tutorial.md"), re.MULTILINE | re.DOTALL)


def test_the_blocks_that_quote_a_file_are_that_file() -> None:
    """A file is quoted in one block, or in several that follow each other; only blank lines between them are left out."""
    blocks: dict[str, list[str]] = {}
    for name, block in quoted():
        blocks.setdefault(name, []).append(block)
    assert set(blocks) == {str(path.relative_to(REPO)) for path in (*PLUGINS.rglob("*.py"), PLUGINS / "pyproject.toml")}
    for name, parts in blocks.items():
        lines = [line for part in parts for line in part.splitlines() if line]
        text = (REPO / name).read_text(encoding="utf-8")
        assert lines == [line for line in text.splitlines() if line], f"docs/tutorial.md quotes another {name}"
        assert len(parts) > 1 or parts[0] == text, f"docs/tutorial.md quotes another {name}"


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tutorial_plugins() -> registry.Registry:
    """A registry with nothing in it but the plugins of the tutorial."""
    plugins = registry.Registry()
    for path in sorted(PLUGINS.glob("*.py")):
        found = registry.from_module(module_of(path), plugins)
        assert found.status == "ok", found.reason
    return plugins


def test_the_plugins_of_the_tutorial_register(tutorial_plugins: registry.Registry) -> None:
    assert (list(tutorial_plugins.tasks), list(tutorial_plugins.strategies)) == (["levels"], ["vectors"])


def test_the_plugins_of_the_tutorial_are_named_in_their_entry_points(tutorial_plugins: registry.Registry) -> None:
    project = tomllib.loads((PLUGINS / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(project["entry-points"]["hubtune"].values()) == sorted(found.name for found in tutorial_plugins.plugins)


def test_the_plugins_of_the_tutorial_train_and_answer(
    tutorial_plugins: registry.Registry, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hubtune

    monkeypatch.setattr(registry, "load", lambda: tutorial_plugins)
    texts = {"low": "all is well", "medium": "please look at it soon", "high": "it broke, come at once"}
    rows = [{"message": f"{text}, room {number}", "priority": level} for number in range(16) for level, text in texts.items()]
    run = hubtune.train(
        "levels", model=tiny_model("bert"), data=rows, strategy="vectors", out=tmp_path / "run",
        set={"task.order": list(texts), "train.epochs": 1.0},
    )
    assert run.record["parameters"]["trainable"] < 0.1 * run.record["parameters"]["total"]
    assert set(run.metrics) == {"steps_off", "accuracy"}
    answer = run.predict(["it broke"])[0]
    assert answer["label"] == list(texts)[answer["level"]]
    assert 0 <= answer["expected"] <= 2


def test_the_task_of_the_tutorial_says_what_is_wrong_with_its_rows(tutorial_plugins: registry.Registry) -> None:
    from hubtune.recipe import PluginChoice

    with pytest.raises(errors.DataError, match="at least two"):
        tutorial_plugins.task(PluginChoice("levels")).validate_data({"train": []})
    task = tutorial_plugins.task(PluginChoice("levels", {"order": ["low", "high"]}))
    with pytest.raises(errors.DataError, match=r"row 2 of train"):
        task.validate_data({"train": [{"label": "low"}, {"label": "middling"}, {"label": "high"}]})


# ---------------------------------------------------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings have, as the usual viewers make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []
