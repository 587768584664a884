"""The contract holds still: plugins of strangers are written against it.

When it has to change, raise `CONTRACT` if a plugin that works now would not work then, say so in the changelog, and
record it anew: python tests/architecture/test_contract_lock.py
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

CORE = Path(__file__).resolve().parents[2] / "hubtune"
SOURCES = (CORE / "options.py", *(CORE / "contract" / f"{name}.py" for name in (
    "types", "plugin", "functions", "task", "strategy", "data_format", "exporter", "command", "hooks")))
RECORD = Path(__file__).with_name("contract.json")


def signature(node: ast.FunctionDef) -> str:
    """`@hook name(arguments) -> what`, as it is written."""
    marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{marks}({ast.unparse(node.args)}){returns}"


def members(node: ast.ClassDef) -> dict[str, Any]:
    """Bases, fields and methods of a class; its docstrings may change freely."""
    found: dict[str, Any] = {
        "class": [ast.unparse(item) for item in (*node.decorator_list, *node.bases)], "fields": {}, "methods": {},
    }
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            found["methods"][item.name] = signature(item)
        elif isinstance(item, ast.AnnAssign):
            value = f" = {ast.unparse(item.value)}" if item.value else ""
            found["fields"][ast.unparse(item.target)] = ast.unparse(item.annotation) + value
    return found


def contract() -> dict[str, Any]:
    """Everything public of the contract, in its order."""
    found: dict[str, Any] = {}
    for node in [node for source in SOURCES for node in ast.parse(source.read_text(encoding="utf-8")).body]:
        if getattr(node, "name", None) in ("fill", "fit", "describe") or ast.unparse(node).startswith(("PartT", "MISFIT")):
            continue  # how core reads options
        if isinstance(node, ast.ClassDef):
            found[node.name] = members(node)
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = signature(node)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) != "__all__":
            found[ast.unparse(node.targets[0])] = ast.unparse(node.value)
    return found


def record() -> None:
    """Write down the contract as it is now."""
    RECORD.write_text(json.dumps(contract(), indent=2) + "\n", encoding="utf-8")


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Every leaf under its path, so that a difference can be named."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {name: leaf for key, item in tree.items() for name, leaf in flat(item, f"{path}.{key}".lstrip(".")).items()}


def test_the_contract_is_as_recorded() -> None:
    now, then = flat(contract()), flat(json.loads(RECORD.read_text(encoding="utf-8")))
    changes = [f"{name}: {then.get(name, 'absent')!r} became {now.get(name, 'absent')!r}"
               for name in {**then, **now} if now.get(name) != then.get(name)]
    assert not changes, "\n".join(["The contract has changed.", *changes, str(__doc__)])


def test_the_record_holds_what_plugins_use() -> None:
    import hubtune
    from hubtune import contract as module
    from hubtune.contract.class_checks import KINDS

    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    used = {name for name in hubtune.__all__ if getattr(module, name, None) is not None}
    assert used <= set(recorded)
    assert {f"hubtune_{kind}" for kind in KINDS} <= set(recorded)
    assert recorded["CONTRACT"] == str(hubtune.CONTRACT)


if __name__ == "__main__":
    record()
