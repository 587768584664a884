"""Code beside a model's weights: it runs only where the user names the repository with its commit, or the folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubtune.contract import Strategy, registry
from hubtune.errors import ModelError, RecipeError, listing
from hubtune.hub.origin import Origin, fetch
from hubtune.record import RECORD

HEAD_TYPE = "hubtune-head"
"""The `model_type` of models with a head of hubtune's own: hubtune never runs the copy of its code
beside their weights."""
ADDED = "hubtune_"
"""Beginning of the keys of config.json under which strategies record the modules that they have added."""
TrustCode = str | Path | Iterable[str | Path] | None
"""What a user trusts: `REPO@COMMIT` with all 40 digits, a folder, or several of these."""


def as_names(trusted: TrustCode) -> tuple[str, ...]:
    """Return what a user trusts as a tuple."""
    given = [trusted] if isinstance(trusted, str | Path) else trusted or ()
    return tuple(map(str, given))


def require_trust(origin: Origin, trusted: TrustCode, run: Path | None = None) -> None:
    """Refuse a model whose code would run, unless the user trusts it.

    Args:
        trusted: as the user gave it.
        run: the folder of the run that the model is of.

    Raises:
        ModelError: with the files of code, and what names them.
    """
    given = as_names(trusted)
    check_own_code(origin)
    if any(names(item, origin, run) for item in given):
        return
    name = name_of(origin, run)
    other = f" ({listing(given, 2)} is trusted, which is another.)" if given else ""
    raise ModelError(
        f"it loads with code that lies beside its weights ({listing(code_files(origin), 4)}), which "
        f"runs only if you name it.{other}", where=origin.repo,
        hint=f"Read the code; if you trust it, add to the command: --trust-code {shlex.quote(name)}\n"
        f"In Python: trust_code={name!r}" + (
            "" if RECORD in origin.files else "\nOr use transformers' own class, which may compute "
            "otherwise: remove 'auto_map' from its config.json in a copy of the folder."))


def with_code(origin: Origin, trusted: TrustCode, run: Path | None = None) -> Origin:
    """Return the origin of a model whose code may run. Raises ModelError unless the user trusts it."""
    require_trust(origin, trusted, run)
    return replace(origin, runs_code=True)


def base_with_code(origin: Origin, trusted: Iterable[str], library_class: bool) -> Origin:
    """Return the origin of a model that is to be tuned; its code may run where the user trusts it.

    Args:
        library_class: the user chose transformers' class instead (`model.library_class`).

    Raises:
        ModelError: another model is trusted.
        RecipeError: both are chosen.
    """
    given = tuple(trusted)
    if not given or not named_code(origin):
        return origin
    if library_class:
        raise RecipeError("--trust-code runs the model's code, and model.library_class=true leaves it out.",
                          hint="Leave one of them out.")
    return with_code(origin, given)


def named_code(origin: Origin) -> dict[str, str]:
    """Return what the configuration files of a model name as its own code, as text by file.

    Code that hubtune does not need, since it builds the model itself, is left out.
    """
    found = {}
    for name in origin.small:
        if not name.endswith("config.json"):
            continue
        config = read_if_possible(origin, name)
        if config.get("auto_map") and not (name == "config.json" and is_built_here(config)):
            found[name] = json.dumps(config["auto_map"])[:200]
    return found


def read_if_possible(origin: Origin, name: str) -> dict[str, Any]:
    """Read a JSON object beside the weights; empty where it is none, which is told where it is loaded."""
    if name not in origin.files:
        return {}
    try:
        read = json.loads((fetch(origin, origin.small) / name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def is_built_here(config: Mapping[str, Any]) -> bool:
    """Tell whether hubtune builds a model by code of its own or of an installed strategy, by its config.json."""
    return config.get("model_type") == HEAD_TYPE or added_by(config) is not None


def needs_no_code(origin: Origin) -> bool:
    """Tell whether hubtune builds a model itself, so that the code beside its weights is for others."""
    return is_built_here(read_if_possible(origin, "config.json"))


def added_by(config: Mapping[str, Any]) -> type[Strategy[Any]] | None:
    """Return the installed strategy whose modules a config.json records; None without such a record."""
    if not any(name.startswith(ADDED) for name in config):
        return None
    strategies = registry.load("hubtune_strategies").strategies.values()
    return next((kind for kind in strategies if kind.config_key.startswith(ADDED)
                 and isinstance(config.get(kind.config_key), dict)), None)


def check_own_code(origin: Origin) -> None:
    """Refuse a model whose configuration names code of another repository, which nobody named.

    Raises:
        ModelError: transformers would fetch and run that code.
    """
    for name, text in named_code(origin).items():
        if "--" in text:
            raise ModelError(f"its {name} names code of another repository: {text}.",
                             where=origin.repo, hint="Only code beside the weights can be trusted.")


def check_library_class(origin: Origin, model_type: str, is_wanted: bool) -> None:
    """Refuse a model that names code of its own, for an architecture that transformers has too.

    Args:
        is_wanted: the user chose transformers' class, which may compute otherwise.

    Raises:
        ModelError: with the files that name it, and the setting that leaves the code out.
    """
    found = named_code(origin)
    if found and not is_wanted and not origin.runs_code:
        named = "; ".join(f"{name}: {text}" for name, text in found.items())
        raise ModelError(
            f"it names code of its own for '{model_type}' ({named}), which runs only if you name it.",
            where=origin.repo,
            hint=f"{trust_hint(origin)}\nTo tune it with transformers' own class for '{model_type}' "
            "instead, which may compute otherwise: --set model.library_class=true")


def trust_hint(origin: Origin) -> str:
    """Return what names the code of a model that is to be tuned."""
    name = name_of(origin, None)
    return (f"Read the code ({listing(code_files(origin), 4) or 'which is not there'}); if you trust it, add to the "
            f"command: --trust-code {shlex.quote(name)}")


def code_files(origin: Origin) -> list[str]:
    """Return the Python files at the top level of a model's folder."""
    return sorted(name for name in origin.files if "/" not in name and name.endswith(".py"))


def name_of(origin: Origin, run: Path | None) -> str:
    """Return how a user names the code of a model."""
    if origin.folder is None:
        return f"{origin.repo}@{origin.commit}"
    return str(run or origin.folder)


def names(given: str | Path, origin: Origin, run: Path | None) -> bool:
    """Tell whether what a user trusts is this model."""
    if origin.folder is None:
        return str(given) == f"{origin.repo}@{origin.commit}"
    path = Path(given).expanduser().resolve()
    return path in {folder.resolve() for folder in (origin.folder, run) if folder is not None}
