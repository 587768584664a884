"""Private names of libraries are used in models/compat only, where a test per name says which release changed it."""

from __future__ import annotations

import ast
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
COMPAT = "hubtune/models/compat.py"
HEADS = "hubtune/models/heads/modeling.py"  # published as one file, so that it cannot import compat
ALLOWED = {
    COMPAT: {
        "_keep_in_fp32_modules": "transformers' families that overflow in fp16",
        "_make_wrapper_subclass": "torch has no public constructor of tensors without storage",
        "_model_mapping": "transformers has no public way from an Auto class to its models",
        "_version": "torch counts in-place changes in it, and has no public count",
    },
    HEADS: {
        "_get_feature_vector_attention_mask": "models of sound have no public way from the mask of samples to that of states",
    },
}
"""Private names by file, each with the reason; tests/models/test_compat.py fails when a release changes one."""
DOCUMENTED = {"_exit"}
"""Names that begin like private ones and are documented: os._exit."""
C_LIBRARY = {"hubtune/devices/memory.py"}
"""Files that call the C library through ctypes: glibc's public `malloc_trim` and `mallopt`."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def private_names(tree: ast.Module) -> set[str]:
    """Return private names that a module uses and does not define: attributes, imports, and names as strings."""
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.ctx, ast.Store):
                defined.add(node.attr)
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            parts = [alias.name for alias in node.names]
            parts += (getattr(node, "module", None) or "").split(".")
            found.update(part for name in parts for part in name.split("."))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            found.update(item.value for item in node.args[1:2]
                         if isinstance(item, ast.Constant) and isinstance(item.value, str))
    return {name for name in found - defined if is_private(name)}


def modules(*folders: str) -> dict[str, ast.Module]:
    paths = (path for folder in folders for path in sorted((REPO / folder).rglob("*.py")))
    return {path.relative_to(REPO).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def test_private_names_are_found() -> None:
    source = "from a._b import c\nx._d\ngetattr(x, '_e')\nself._own = 1\nself._own\n__name__"
    assert private_names(ast.parse(source)) == {"_b", "_d", "_e"}


def test_only_compat_uses_private_names_of_libraries() -> None:
    found = {path: private_names(tree) for path, tree in modules("hubtune").items()
             if not path.startswith("hubtune/testing/")}
    unexpected = {path: names - set(ALLOWED.get(path, ())) for path, names in found.items()}
    assert {path: names for path, names in unexpected.items() if names} == {}, (
        f"use a public name; if there is none, use it in {COMPAT} with a test in tests/models/test_compat.py")


def test_every_allowed_name_is_used() -> None:
    trees = modules("hubtune/models")
    assert {path: set(names) for path, names in ALLOWED.items()} == {
        path: private_names(trees[path]) for path in ALLOWED}


def test_only_these_call_the_c_library() -> None:
    found = {path for path, tree in modules("hubtune").items() for node in ast.walk(tree)
             if isinstance(node, ast.Import) and any(alias.name == "ctypes" for alias in node.names)}
    assert found == C_LIBRARY
