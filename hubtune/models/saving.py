"""Save a model, its processor and further files in the layout of the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hubtune.contract import Base, Export
from hubtune.hub.origin import Origin

LOCAL_KEYS = ("name_or_path", "is_local", "local_files_only")
"""Keys of `tokenizer_config.json` and similar files with values of this machine."""


def save(
    export: Export, base: Base, folder: Path, origin: Origin, task_files: Mapping[str, str | bytes]
) -> None:
    """Write model, processor, adapter and further files, without values of this machine.

    Args:
        origin: the base model, which an adapter's configuration names with its commit.
        task_files: contents of the task's own files, by path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    export.root.config.name_or_path = ""
    sharding = {} if export.loads_with == "peft" else {"max_shard_size": "5GB"}
    export.root.save_pretrained(folder, **sharding)
    reset_tokenizer(base.processor)
    base.processor.save_pretrained(folder)
    for name, part in export.beside.items():
        part.save_pretrained(folder / name)
    for name, text in {**task_files, **export.files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    if export.config:
        rewrite_json(folder / "config.json", lambda config: {**config, **export.config})
    if (folder / "config.json").is_file():  # an adapter has none
        rewrite_json(folder / "config.json", without_paths)
    for path in folder.rglob("*_config.json"):
        rewrite_json(path, lambda config: without_local_values(config, origin))
    for path in folder.rglob("*config.json"):
        rewrite_json(path, lambda config: without_absent_code(config, folder))


def reset_tokenizer(processor: Any) -> None:
    """Turn off padding and truncation, which `tokenizer.json` would keep from the last batch."""
    for part in (processor, getattr(processor, "tokenizer", None)):
        backend = getattr(part, "backend_tokenizer", None)
        if backend is not None:
            backend.no_padding()
            backend.no_truncation()


def without_local_values(config: dict[str, Any], origin: Origin) -> dict[str, Any]:
    """Remove values of this machine; name an adapter's base model by repository and commit."""
    kept = {key: value for key, value in config.items() if key not in LOCAL_KEYS}
    if "base_model_name_or_path" in kept:
        is_named = origin.pinned is not None and not origin.subfolder and origin.adapter is None
        repo = origin.repo if is_named else None
        kept |= {"base_model_name_or_path": repo, "revision": origin.commit if repo else None}
    return kept


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Remove where configurations inside of a configuration were loaded from, such as that of the model below a head."""
    return {key: without_paths(value) if isinstance(value, dict) else value for key, value in config.items()
            if key != "_name_or_path"}


def without_absent_code(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Remove the names of code (`auto_map`) whose file is not beside the weights."""
    names = config.get("auto_map")
    if not isinstance(names, dict):
        return {key: value for key, value in config.items() if key != "auto_map"}
    there = {auto: name for auto, name in names.items() if all(
        isinstance(part, str) and (folder / f"{part.partition('.')[0]}.py").is_file()
        for part in (name if isinstance(name, list) else [name])  # of tokenizers, slow and fast
        if part is not None)}
    rest = {key: value for key, value in config.items() if key != "auto_map"}
    return {**rest, "auto_map": there} if there else rest


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Transform the contents of a JSON file."""
    changed = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(changed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
