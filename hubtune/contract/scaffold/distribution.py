"""A plugin to begin with: a whole distribution that passes its own tests, written from the templates beside this file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hubtune.contract import registry
from hubtune.contract.class_checks import CORE_COMMANDS, WORDS
from hubtune.errors import PluginError

TEMPLATES = Path(__file__).with_name("templates")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
FILES = {
    "{{module}}.py": "{{kind}}.py.tmpl", "tests/test_{{short}}.py": "test-{{kind}}.py.tmpl",
    "pyproject.toml": "pyproject.toml.tmpl", "README.md": "README-{{kind}}.md.tmpl",
    ".github/workflows/test.yml": "test.yml.tmpl", ".gitignore": "gitignore.tmpl",
}
"""Written files, and the template of each."""


def new(name: str, kind: str, out: str | Path | None = None) -> dict[str, Any]:
    """Write a distribution with one plugin. name: the plugin's, in kebab-case. kind: task, strategy, loss, metric, format, exporter or command.

    Returns {"name", "kind", "distribution", "module", "folder", "files"}. Raises PluginError for a name that is taken or
    malformed, and for a folder with something in it.
    """
    refuse_name(name)
    words = {
        "name": name, "kind": kind, "distribution": f"hubtune-{name}", "short": name.replace("-", "_"),
        "module": f"hubtune_{name.replace('-', '_')}", "Class": "".join(part.capitalize() for part in name.split("-")),
    }
    if registry.importable(words["module"]):
        raise PluginError(f"the module {words['module']} is already installed.", hint="Choose another name.")
    if name in (*CORE_COMMANDS, "help"):
        raise PluginError(f"'{name}' is a command of hubtune.", hint="Choose another name.")
    folder = Path(out) if out is not None else Path(words["distribution"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PluginError(f"'{folder}' is there already, with something in it.", hint="Name another folder with --out.")
    written = []
    for place, template in FILES.items():
        path = folder / filled(place, words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(filled((TEMPLATES / filled(template, words)).read_text(encoding="utf-8"), words), encoding="utf-8")
        written.append(str(path.relative_to(folder)))
    facts = {key: words[key] for key in ("name", "kind", "distribution", "module")}
    return {**facts, "folder": str(folder), "files": sorted(written)}


def refuse_name(name: str) -> None:
    """Refuse what cannot be the name of a plugin, or is one already."""
    if name.startswith("hubtune-"):
        raise PluginError(f"'{name}' would become 'hubtune-{name}'.", hint=f"Leave the prefix out: {name.removeprefix('hubtune-')}")
    if not NAME.fullmatch(name) or len(name) > 40:
        raise PluginError(
            f"'{name}' is no name for a plugin: lower-case letters and digits, with single hyphens between words.",
            hint="For example: toxic-spans",
        )
    plugins = registry.load()
    for kind, word in WORDS.items():
        table = getattr(plugins, kind)
        if name in table:
            raise PluginError(f"there is a {word} named '{name}' already, of the plugin '{plugins.origin(table[name]).name}'.",
                              hint="Choose another name; all of them are listed by: hubtune plugins")


def filled(text: str, words: dict[str, str]) -> str:
    """A text with every `{{word}}` that is known replaced."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words.get(found[1], found[0]), text)
