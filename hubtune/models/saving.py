"""Save a model, its processor and further files in the layout of the Hub."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hubtune.contract import Base, Export
from hubtune.errors import ModelError
from hubtune.hub.headers import read_headers
from hubtune.hub.origin import Origin

LOCAL_KEYS = ("name_or_path", "is_local", "local_files_only")
"""Keys of `tokenizer_config.json` and similar files with values of this machine."""


def save(
    export: Export, base: Base, folder: Path, origin: Origin, task_files: Mapping[str, str | bytes],
    dtype: str | None = None,
) -> None:
    """Write model, processor, adapter and further files, without values of this machine.

    Args:
        origin: the base model, which an adapter's configuration names with its commit.
        task_files: contents of the task's own files, by path.
        dtype: the number format of the weights, which hold numbers of it (`round_weights`); None: their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    export.root.config.name_or_path = ""
    sharding = {} if export.loads_with == "peft" else {"max_shard_size": "5GB"}
    export.root.save_pretrained(folder, **sharding, **({"state_dict": cast(export.root, dtype)} if dtype else {}))
    if dtype:
        export = dataclasses.replace(export, config={**export.config, "dtype": dtype})
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


def dtype_of(wanted: str, origin: Origin) -> str | None:
    """Return the number format in which a model is published, as torch calls it; None for that of training, fp32.

    Args:
        wanted: `publish.dtype`.
        origin: the base model, whose format is that of most of its numbers.
    """
    if wanted != "base":
        return None if wanted == "float32" else wanted
    sizes: Counter[str] = Counter()
    for header in read_headers(origin).values():
        sizes[header.dtype] += math.prod(header.shape)
    return {"BF16": "bfloat16", "F16": "float16"}.get(max(sizes, key=sizes.__getitem__, default=""))


def round_weights(model: Any, dtype: str) -> None:
    """Round a model's weights to a number format, in which they are saved; they stay in the format of training.

    Raises:
        ModelError: a weight is larger than the format's largest number.
    """
    import torch

    with torch.no_grad():
        for name, tensor in floats(model).items():
            rounded = tensor.to(getattr(torch, dtype)).to(tensor.dtype)
            if not rounded.isfinite().all():
                raise ModelError(f"the weights {name} do not fit {dtype}.", hint="Publish them as they are: --set publish.dtype=float32")
            tensor.copy_(rounded)


def floats(model: Any) -> dict[str, Any]:
    """Return the tensors of a model's checkpoint that hold floating point numbers, tied ones by each of their names."""
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def cast(model: Any, dtype: str) -> dict[str, Any]:
    """Return a model's checkpoint in a number format; tied tensors stay one tensor."""
    import torch

    made: dict[int, Any] = {}
    return {name: made.setdefault(tensor.data_ptr(), tensor.to(getattr(torch, dtype))) if name in floats(model) else tensor
            for name, tensor in model.state_dict().items()}


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
