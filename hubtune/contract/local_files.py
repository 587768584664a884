"""Python files that are plugins without being installed: `--plugin FILE`, or HUBTUNE_PLUGIN_FILES, which child processes have too."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from hubtune.errors import BrokenPlugin

VARIABLE = "HUBTUNE_PLUGIN_FILES"
"""The environment variable with the plugin files of this process and its children, as PATH is written."""


def named() -> list[Path]:
    """The plugin files that were named, each once."""
    return list(dict.fromkeys(Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name))


def use(paths: Sequence[str | Path]) -> None:
    """Load these Python files as plugins too, in this process and in those that it starts."""
    found = [str(path) for path in named()]
    found += [str(Path(path).expanduser().resolve()) for path in paths]
    if found:
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(found))


def version_of(path: Path) -> str:
    """Return what stands for a version: the first digits of the file's sha256."""
    return f"sha256:{digits(path.read_bytes())}" if path.is_file() else ""


def digits(contents: bytes) -> str:
    """Return the first 12 hexadecimal digits of the sha256 of some bytes."""
    import hashlib  # with OpenSSL, which `--help` does not need

    return hashlib.sha256(contents).hexdigest()[:12]


def load(path: Path) -> ModuleType:
    """The module in a file, imported once in a process as long as the file stays as it is."""
    if not path.is_file():
        raise BrokenPlugin(f"there is no file '{path}'.")
    if path.suffix != ".py":
        raise BrokenPlugin(f"'{path.name}' is no Python file.")
    name = f"hubtune_file_{digits(str(path).encode() + path.read_bytes())}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BrokenPlugin(f"'{path.name}' cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
