"""Where a model comes from: a repository of the Hub at a commit, or a local folder known by its hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubtune.errors import ModelError, Unsafe, listing
from hubtune.files import of_files
from hubtune.hub.download import Pinned, pull, resolve, split_id
from hubtune.hub.errors import not_cached
from hubtune.record import RECORD

SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".md", ".vocab", ".spm")
CODE_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl", ".onnx", ".gguf")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: a repository at a commit, or a local folder known by the sha256 of its files."""

    repo: str
    commit: str
    files: Mapping[str, int]
    folder: Path | None = None
    pinned: Pinned | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> list[str]:
        """The safetensors files that make the model at the top of the repository."""
        top = [name for name in self.files if "/" not in name and name.endswith(".safetensors")]
        whole = [name for name in top if name == "model.safetensors"]
        return whole or sorted(name for name in top if name.startswith("model-"))

    @property
    def small(self) -> list[str]:
        """Configuration, tokenizer and card: what tells everything but the weights."""
        return sorted(name for name in self.files if "/" not in name and name.endswith(SMALL))

    def described(self) -> dict[str, Any]:
        """For `run.json` and the card: no path of this machine in it."""
        return {
            "repo": self.repo, "commit": self.commit, "local": self.pinned is None,
            "license": self.card.get("license"), "language": self.card.get("language"),
            "license_name": self.card.get("license_name"), "license_link": self.card.get("license_link"),
            "gated": bool(self.pinned and self.pinned.gated), "private": bool(self.pinned and self.pinned.private),
        }


def locate(model: str, commit: str | None = None) -> Origin:
    """Find a model by folder or by `org/name[@revision]`, and pin it. Nothing is downloaded yet."""
    path = Path(model).expanduser()
    if path.is_dir():
        return in_folder(path)
    if path.is_absolute() or model.startswith((".", "~")):
        raise ModelError(f"there is no folder '{model}'.", hint="Give --model a folder, or a Hub id such as org/name.")
    repo, revision = split_id(model)
    pinned = resolve(repo, commit or revision)
    return Origin(
        pinned.repo, pinned.commit, {file.path: file.size for file in pinned.files}, pinned=pinned, card=pinned.card
    )


def in_folder(folder: Path) -> Origin:
    """A model folder, known by the hash of the files that belong to the model."""
    from huggingface_hub import ModelCard

    files = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    origin = Origin(folder.resolve().name, "", files, folder)
    belongs = {name: folder / name for name in (*origin.small, *origin.weights) if name != "README.md"}
    readme = folder / "README.md"
    card = ModelCard.load(readme, ignore_metadata_errors=True).data.to_dict() if readme.exists() else {}
    return Origin(origin.repo, f"sha256:{of_files(belongs)}", files, folder, card=card)


def refuse_unsafe(origin: Origin) -> None:
    """Refuse a repository without safetensors of a whole model."""
    if "config.json" not in origin.files:
        what = "an adapter: train from the model that it was made for" if "adapter_config.json" in origin.files else (
            "no transformers model: it has no config.json")
        raise ModelError(f"'{origin.repo}' is {what}.", hint="See what it holds with: hubtune show " + origin.repo)
    if not origin.weights:
        if origin.pinned is not None and origin.pinned.cached:
            raise not_cached(f"{origin.repo}'s weights", origin.commit)
        others = [name for name in origin.files if name.endswith(CODE_WEIGHTS)]
        raise Unsafe(
            f"'{origin.repo}' has no safetensors weights, only {listing(others) if others else 'none at all'}; "
            "loading a pickle can run code of its author, so hubtune does not.", where=origin.repo,
            hint="Ask its author to convert it (https://huggingface.co/spaces/safetensors/convert), "
            "or look for another: hubtune search " + origin.repo.split("/")[-1],
        )


def fetch(origin: Origin, names: list[str]) -> Path:
    """The folder that has these files, fetched if they are not here."""
    return origin.folder if origin.pinned is None else pull(origin.pinned, names)  # type: ignore[return-value]


def said_beside(origin: Origin) -> dict[str, Any]:
    """What hubtune wrote beside the weights; empty for a model that it did not tune."""
    if RECORD not in origin.files:
        return {}
    said = json.loads((fetch(origin, origin.small) / RECORD).read_text(encoding="utf-8"))
    return dict(said) if isinstance(said, dict) else {}


def parameters_of(origin: Origin) -> int | None:
    """How many numbers the weights hold, from the headers of a folder's files or from what the Hub counted."""
    if origin.pinned is not None:
        return origin.pinned.parameters
    if origin.folder is None or not origin.weights:
        return None
    from math import prod

    from safetensors import safe_open

    total = 0
    for name in origin.weights:
        with safe_open(origin.folder / name, framework="np") as file:
            total += sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 - no mapping
    return total


def weight_formats(origin: Origin) -> list[dict[str, Any]]:
    """The formats that weights are there in, with the number of files and their bytes."""
    found: dict[str, dict[str, Any]] = {}
    for name, size in origin.files.items():
        suffix = Path(name).suffix
        if suffix == ".safetensors" or suffix in CODE_WEIGHTS:
            entry = found.setdefault(suffix[1:], {"format": suffix[1:], "files": 0, "bytes": 0})
            entry["files"] += 1
            entry["bytes"] += size
    return sorted(found.values(), key=lambda entry: str(entry["format"]))
