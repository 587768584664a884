"""The laws of the house: which module may know which, how large things may be, and that lists are true."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import hubtune

REPO = Path(__file__).resolve().parents[2]
CORE, PLUGINS = REPO / "hubtune", REPO / "plugins"

ORDER = (
    "errors", "environment", "guest", "signals", "files", "temporary", "other_names", "options", "recipe", "defaults", "record", "callbacks",
    "contract", "hub", "data", "devices", "models", "evaluation", "acceleration", "training", "runs",
    "sweeps", "api", "", "cli", "__main__", "testing",
)  # fmt: skip
"""Packages and top-level modules; each imports from those before it only. "" is hubtune itself: the public names."""
RANK = {name: rank for rank, name in enumerate(ORDER)}
SHARED = {"classification", "layers", "serving", "tokenization", "writing"}
"""Plugin folders that are no family of plugins: the others may import from them."""
BUILDS_ON = {"vision_language": {"generation", "vision"}}
"""Families that read what two others read, and write as they do; these import nothing of them."""
MODULES_IN_A_FOLDER, LINES_OF_A_MODULE, LINES_OF_A_FUNCTION = 14, 350, 60


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def core_files() -> list[Path]:
    return [path for path in sorted(CORE.rglob("*.py")) if "testing" not in path.relative_to(CORE).parts]


def plugin_files() -> list[Path]:
    return sorted(PLUGINS.rglob("*.py"))


def module_of(path: Path) -> str:
    """`hub.reading` for hubtune/hub/reading.py; an empty string for hubtune itself."""
    return ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def works(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: what stands under `if TYPE_CHECKING` is for the type checker alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from works(child)


def imported(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every import that runs, also of those inside functions; name is empty for `import x`."""
    found = []
    for node in works(tree(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [("." * node.level + (node.module or ""), alias.name) for alias in node.names]
    return found


def own_imports(path: Path) -> set[str]:
    """Modules of hubtune that a file imports, as `module_of` names them."""
    modules = {module_of(file) for file in CORE.rglob("*.py")}
    found = set()
    for module, name in imported(path):
        if module.partition(".")[0] == "hubtune":
            inner = module.removeprefix("hubtune").removeprefix(".")
            deeper = f"{inner}.{name}".strip(".")
            found.add(deeper if deeper in modules else inner)
    return found


def package_of(module: str) -> str:
    """The package or top-level module in `ORDER` that a module belongs to."""
    return module.partition(".")[0]


def importers(package: str, paths: list[Path]) -> set[str]:
    return {str(path.relative_to(REPO)) for path in paths
            if any(module.partition(".")[0] == package for module, _ in imported(path))}


# -------------------------------------------------------------------------------------------- who imports whom


def test_every_package_has_a_place_in_the_order() -> None:
    assert {package_of(module_of(path)) for path in core_files()} | {"testing"} == set(ORDER)


def test_packages_import_only_from_those_before_them() -> None:
    upward = [
        f"{module_of(path) or 'hubtune'} imports {other}"
        for path in core_files() for other in sorted(own_imports(path))
        if other and RANK[package_of(other)] > RANK[package_of(module_of(path))]
        and (module_of(path), package_of(other)) != ("cli.listings", "testing")  # `hubtune plugins --check` runs the kit
    ]
    assert upward == []


def test_type_hints_too_point_to_earlier_packages() -> None:
    """Imports under TYPE_CHECKING count as well, but for the public names, which stand in hubtune itself."""
    upward = set()
    for path in core_files():
        here = package_of(module_of(path))
        for node in ast.walk(tree(path)):
            if here and isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hubtune."):
                there = package_of(str(node.module).removeprefix("hubtune."))
                if RANK[there] > RANK[here] and (here, there) != ("cli", "testing"):
                    upward.add((here, there))
    assert upward == set()


def test_folders_stay_small() -> None:
    counts = {str(folder.relative_to(REPO)): sum(path.name != "__init__.py" for path in folder.glob("*.py"))
              for root in (CORE, PLUGINS) for folder in (root, *root.rglob("*")) if folder.is_dir()}
    assert {name: count for name, count in counts.items() if count > MODULES_IN_A_FOLDER} == {}


def cycles(edges: dict[str, set[str]]) -> list[str]:
    """Modules from which there is a way back to themselves."""
    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(edges[start])
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead += edges.get(module, ())
        return seen

    return sorted(module for module in edges if module in reach(module))


def test_cycles_are_seen() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]


def test_no_module_imports_itself_by_a_detour() -> None:
    edges = {module_of(path): own_imports(path) - {module_of(path)} for path in core_files()}
    packages = {module for module in edges if any(other.startswith(f"{module}.") for other in edges)} - {""}
    for package in packages:  # a package is its __init__, which its own parts never import
        assert not [m for m in edges if m.startswith(f"{package}.") and package in edges[m]]
    assert cycles(edges) == []


def test_only_the_check_of_plugins_imports_the_testing_package() -> None:
    assert [module_of(path) for path in core_files()
            if any(module.startswith("testing") for module in own_imports(path))] == ["cli.listings"]


def test_no_import_is_relative_and_none_takes_everything() -> None:
    assert [(str(path), module) for path in (*core_files(), *plugin_files()) for module, name in imported(path)
            if module.startswith(".") or name == "*"] == []


@pytest.mark.parametrize("path", plugin_files(), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_import_the_public_names_of_hubtune_alone(path: Path) -> None:
    own = [(module, name) for module, name in imported(path) if module.partition(".")[0] == "hubtune"]
    if path.name == "fixtures.py":  # what the kit tries tasks on, which no run imports
        own.remove(("hubtune.testing", "TaskFixture"))
    assert [(module, name) for module, name in own if module != "hubtune" or name not in hubtune.__all__] == []
    family = path.relative_to(PLUGINS / "hubtune_plugins").parts[0]
    others = {folder.name for folder in (PLUGINS / "hubtune_plugins").iterdir()} - {
        family, *SHARED, *BUILDS_ON.get(family, ())}
    assert [module for module, _ in imported(path) if module.startswith("hubtune_plugins.")
            and module.split(".")[1] in others] == []


def test_only_these_talk_to_the_hub_s_client() -> None:
    allowed = {"hubtune/models/configuration.py"}
    found = {name for name in importers("huggingface_hub", [*core_files(), *plugin_files()])
             if not name.startswith("hubtune/hub/")}
    assert found <= allowed


def test_only_these_touch_transformers() -> None:
    assert importers("transformers", core_files()) <= {
        "hubtune/models/compat.py", "hubtune/models/configuration.py", "hubtune/models/loading.py",
        "hubtune/models/heads/modeling.py", "hubtune/models/image_processors.py", "hubtune/models/peft_adapters.py",
        "hubtune/evaluation/clean_process.py"}
    loaders = {(path.name, name) for path in plugin_files() for module, name in imported(path)
               if module.partition(".")[0] == "transformers" and name.startswith("AutoModel")}
    assert loaders == set(), "plugins are given their model"


def test_only_models_names_the_auto_classes() -> None:
    named = {module_of(path) for path in core_files() for node in ast.walk(tree(path))
             if (isinstance(node, ast.Attribute | ast.Name | ast.alias)
                 and re.match(r"Auto[A-Z]", getattr(node, "attr", None) or getattr(node, "id", None)
                              or getattr(node, "name", "")))}
    assert named <= {"models.configuration", "models.heads.modeling", "evaluation.clean_process"}


def test_only_these_touch_accelerate() -> None:
    allowed = ("training/state", "training/accumulation", "training/grad_cache", "training/checkpoint", "evaluation/model_checks",
               "evaluation/inference", "devices/processes", "guest")
    assert importers("accelerate", [*core_files(), *plugin_files()]) <= {f"hubtune/{name}.py" for name in allowed}


# ---------------------------------------------------------------------------------- what an import costs and needs

PROBE = """
import importlib, json, os, sys, warnings
heavy = {heavy!r}
for name in {before!r}:
    importlib.import_module(name)
said = {{}}
for name in {modules!r}:
    reader, writer = os.pipe()
    if not os.fork():
        try:
            warnings.simplefilter("error")
            importlib.import_module(name)
            found = [word for word in heavy if word in sys.modules]
        except BaseException as error:
            found = repr(error)
        os.write(writer, json.dumps(found).encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said[name] = json.loads(pipe.read())
    os.wait()
print(json.dumps(said))
"""
HEAVY = ["torch", "transformers", "datasets", "huggingface_hub", "accelerate", "sklearn", "scipy", "peft", "pandas"]


def probe(modules: list[str], before: list[str]) -> dict[str, list[str] | str]:
    """Import each module in a process where hubtune is new: the heavy packages it brought along, or what it raised.

    Processes are forked from one that has imported `before`, as starting each anew would take a minute.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=[name for name in HEAVY if name not in before], before=before,
                                            modules=modules)],
        capture_output=True, text=True, check=False, cwd=REPO, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked on this system")


def is_cheap(module: str) -> bool:
    """Whether a module may import nothing heavy, since `--help`, a list or a refusal wait for it."""
    dear = ("acceleration", "training", "api", "evaluation.batches", "evaluation.equivalence", "evaluation.inference", "evaluation.loss_checks",
            "evaluation.model_checks", "evaluation.user_calls", "evaluation.verification", "devices.sharding", "devices.fp64", "models.heads.modeling", "runs.stages", "runs.saved_model", "runs.cost")
    cheap = ("training.log", "training.schedule", "training.optimizers", "training.steps", "training.context")
    return module in cheap or not (module.startswith(dear) or module.endswith("__main__"))


@forks
def test_every_module_imports_alone_and_the_cheap_ones_import_nothing_heavy() -> None:
    core = [module_of(path) for path in core_files()]
    cheap = [f"hubtune.{module}".rstrip(".") for module in core if is_cheap(module)]
    families = [".".join(path.relative_to(PLUGINS).with_suffix("").parts) for path in plugin_files() if path.stem != "__init__"]
    found = probe([*cheap, *families, "hubtune.testing.models"], ["numpy", "pluggy", "typer", "rich.progress"])
    assert {f"hubtune.{name}" for name in ORDER[:8]} <= set(found)
    assert {name: said for name, said in found.items() if said} == {}


@forks
def test_the_heavy_modules_import_alone() -> None:
    heavy = [f"hubtune.{module}" for path in core_files() if not is_cheap(module := module_of(path))
             and not module.endswith("__main__")]
    found = probe(heavy, ["torch", "accelerate.utils", "safetensors.torch"])
    assert {name: said for name, said in found.items() if isinstance(said, str)} == {}


# -------------------------------------------------------------------------------------------------- the public door


def test_the_public_names_are_there_each_once_and_in_order() -> None:
    names = hubtune.__all__
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert [name for name in names if getattr(hubtune, name, None) is None] == []
    assert dir(hubtune) == sorted(names)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hubtune.nothing  # noqa: B018


def test_every_public_name_says_what_it_is() -> None:
    silent = [name for name in hubtune.__all__
              if name not in ("CONTRACT", "LabelKind", "LoadsWith", "hookimpl") and not (getattr(hubtune, name).__doc__ or "").strip()]
    silent += [
        f"{name}.{key}" for name in hubtune.__all__ if isinstance(kind := getattr(hubtune, name), type)
        for key, item in vars(kind).items() if callable(item) and not key.startswith("_") and not item.__doc__
        and not any(getattr(getattr(parent, key, None), "__doc__", None) for parent in kind.__mro__[1:])
        and key not in getattr(kind, "__dataclass_fields__", ())
    ]
    assert silent == []


def test_every_module_and_every_public_object_has_a_docstring() -> None:
    silent = []
    for path in [*core_files(), *sorted((CORE / "testing").glob("*.py")), *plugin_files()]:
        if not ast.get_docstring(tree(path)):
            silent.append(str(path.relative_to(REPO)))
        if path in plugin_files():
            continue  # what a method of a plugin means is said where it is inherited from
        silent += [f"{path.relative_to(REPO)}: {node.name}" for node in tree(path).body
                   if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
                   and not ast.get_docstring(node)]
    assert silent == []


# ------------------------------------------------------------------------------------------------- sizes and lists


def test_modules_stay_small() -> None:
    long = {str(path.relative_to(REPO)): count for path in core_files()
            if (count := len(path.read_text(encoding="utf-8").splitlines())) >= LINES_OF_A_MODULE}
    assert long == {}


def test_functions_stay_small() -> None:
    long = {
        f"{path.relative_to(REPO)}:{node.lineno} {node.name}": count
        for path in (*core_files(), *plugin_files()) for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and (count := (node.end_lineno or 0) - node.lineno + 1) >= LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_entry_points_and_plugin_files_are_the_same() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    points = project["project"]["entry-points"]["hubtune"]
    hooked = {
        ".".join(path.relative_to(PLUGINS).with_suffix("").parts) for path in plugin_files() for node in tree(path).body
        if isinstance(node, ast.FunctionDef) and any("hookimpl" in ast.unparse(mark) for mark in node.decorator_list)
    }
    assert sorted(points.values()) == sorted(hooked)
    assert len(set(points.values())) == len(points)
    wheel = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert wheel == {"hubtune", "plugins/hubtune_plugins"}
    extras = set(project["project"]["optional-dependencies"])
    for path in plugin_files():
        for extra in re.findall(r'^\s+extra = "([\w-]+)"', path.read_text(encoding="utf-8"), re.MULTILINE):
            assert extra in extras, path


def test_an_entry_point_has_the_name_of_what_it_brings() -> None:
    from hubtune.contract import registry

    for found in registry.load().plugins:
        if found.source == "hubtune":
            assert found.name in [name for names in found.brings.values() for name in names], found
