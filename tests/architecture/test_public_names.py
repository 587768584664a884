"""What readers are shown: pages, examples, templates and docstrings name public names of hubtune and nothing else of it."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import pytest

import hubtune
from hubtune.contract import registry
from hubtune.contract.class_checks import KINDS

REPO = Path(__file__).resolve().parents[2]
TEMPLATES = REPO / "hubtune" / "contract" / "scaffold" / "templates"
PUBLIC = ("hubtune", "hubtune.testing", "hubtune.testing.hub")
"""Modules that a reader may import."""
NO_MODULES = {"json", "toml", "md", "env", "svg"}
"""What follows `hubtune.` in names of files."""
PAGES = [path for path in sorted([REPO / "README.md", *(REPO / "docs").rglob("*.md"), *(REPO / "examples").rglob("*.md")])
         if path.name != "decisions.md"]  # which tells what was, too
CODE = sorted([*(REPO / "examples").rglob("*.py"), *TEMPLATES.glob("*.py.tmpl")])


def is_public(name: str) -> bool:
    """Whether a dotted name, such as `hubtune.testing.TaskConformance`, leads through public names alone."""
    found = "hubtune"
    for part in name.split(".")[1:]:
        if f"{found}.{part}" in PUBLIC:
            found = f"{found}.{part}"
            continue
        return found in PUBLIC and part in import_module(found).__all__
    return True


def named_in_text(text: str) -> set[str]:
    """The dotted names of hubtune in a text; names of files are none."""
    found = {match.rstrip(".") for match in re.findall(r"(?<![\w/.-])hubtune(?:\.\w+)+", text)}
    return {name for name in found if name.split(".")[1] not in NO_MODULES}


def imported(code: str) -> Iterator[str]:
    """The dotted names that Python code imports from hubtune."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "hubtune")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "hubtune":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def blocks(text: str) -> Iterator[str]:
    """The Python blocks of a page."""
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if not re.match(r"\s*(def|class) .*\)( -> .*)?\n*$", block) and "import" in block:
            yield textwrap.dedent(block)


def private(names: Iterator[str] | set[str]) -> list[str]:
    return sorted({name for name in names if not is_public(name)})


def test_private_names_are_seen() -> None:
    assert private({"hubtune.contract.registry", "hubtune._x", "hubtune.registry", "hubtune.testing.bench"}) == [
        "hubtune._x", "hubtune.contract.registry", "hubtune.registry", "hubtune.testing.bench"]
    assert private({"hubtune", "hubtune.Task", "hubtune.testing.TaskConformance", "hubtune.testing.hub.LoopbackHub"}) == []
    assert named_in_text("`hubtune.json` and hubtune.registry.") == {"hubtune.registry"}
    assert private(set(imported("from hubtune import registry, Task"))) == ["hubtune.registry"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_pages_name_public_names_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert private(named_in_text(text)) == []
    assert private({name for block in blocks(text) for name in imported(block)}) == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_examples_and_templates_import_public_names_alone(path: Path) -> None:
    text = re.sub(r"\{\{(\w+)\}\}", r"\1", path.read_text(encoding="utf-8"))
    assert private(set(imported(text))) == []


def documented() -> Mapping[str, object]:
    """Public objects and their members, by name."""
    found: dict[str, object] = {}
    for module in PUBLIC:
        for name in import_module(module).__all__:
            found[f"{module}.{name}"] = item = getattr(import_module(module), name)
            if isinstance(item, type):
                found |= {f"{module}.{name}.{key}": value for key, value in vars(item).items() if not key.startswith("_")}
    return found


def test_docstrings_of_public_names_name_no_private_ones() -> None:
    objects = documented()
    assert len(objects) > 200
    said = {name: private(named_in_text(str(getattr(item, "__doc__", None) or ""))) for name, item in objects.items()}
    assert {name: names for name, names in said.items() if names} == {}


def test_no_class_of_a_plugin_shares_a_default_that_can_be_changed() -> None:
    plugins = registry.load()
    classes = [*KINDS.values(), *(kind for table in KINDS for kind in getattr(plugins, table).values())]
    shared = [f"{cls.__qualname__}.{name}" for kind in classes for cls in kind.__mro__ if cls.__module__.startswith("hubtune")
              for name, value in vars(cls).items()
              if isinstance(value, list | set) or ((isinstance(value, dict) and name != "defaults") and not name.startswith("__"))]
    assert sorted(set(shared)) == []


def test_hubtune_has_a_public_name_for_every_base_class_of_plugins() -> None:
    assert {kind.__name__ for kind in KINDS.values()} <= set(hubtune.__all__)
