"""A model's source: a repository of the Hub at a commit, or a local folder with its hash."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubtune.errors import ModelError
from hubtune.files import FILE, LINK, entries, hash_files
from hubtune.hub.download import PinnedRepo, download, resolve, split_id
from hubtune.record import RECORD, read_model_record

SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".md", ".vocab", ".spm")


@dataclass(frozen=True)
class Origin:
    """A model's source: a repository at a commit, or a local folder with its files' sha256.

    runs_code: the user named the code beside the weights (`--trust-code`), so that it may run.
    """

    repo: str
    commit: str
    files: Mapping[str, int]
    folder: Path | None = None
    pinned: PinnedRepo | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    runs_code: bool = False

    @property
    def weights(self) -> list[str]:
        """Names of the model's safetensors files at the top level of the repository."""
        top = [name for name in self.files if "/" not in name and name.endswith(".safetensors")]
        whole = [name for name in top if name == "model.safetensors"]
        return whole or sorted(name for name in top if name.startswith("model-"))

    @property
    def small(self) -> list[str]:
        """Names of configuration, tokenizer and card files at the top level; of code that may run."""
        suffixes = (*SMALL, ".py") if self.runs_code else SMALL
        return sorted(name for name in self.files if "/" not in name and name.endswith(suffixes))

    def as_record(self) -> dict[str, Any]:
        """Return the values for `run.json` and the card, without a path of this machine."""
        return {
            "repo": self.repo, "commit": self.commit, "local": self.pinned is None,
            "license": self.card.get("license"), "language": self.card.get("language"),
            "license_name": self.card.get("license_name"),
            "license_link": self.card.get("license_link"),
            "gated": bool(self.pinned and self.pinned.gated),
            "private": bool(self.pinned and self.pinned.private),
        }


def locate(model: str, commit: str | None = None) -> Origin:
    """Find a model by folder or by `org/name[@revision]` and pin its commit, without downloading.

    Raises:
        ModelError: no such folder.
        HubError: the Hub does not have it or denies access.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return local_origin(path)
    if path.is_file():
        raise ModelError(
            f"'{model}' is a file; a model is the folder that holds it, with its config.json and "
            "tokenizer.",
            hint=f"Give the folder: --model {shlex.quote(str(Path(model).parent))}")
    if path.is_absolute() or model.startswith((".", "~")):
        raise ModelError(f"there is no folder '{model}'.",
                         hint="Give a folder, or a Hub id such as org/name.")
    repo, revision = split_id(model)
    pinned = resolve(repo, commit or revision)
    return Origin(
        pinned.repo, pinned.commit, {file.path: file.size for file in pinned.files}, pinned=pinned,
        card=pinned.card
    )


def local_origin(folder: Path) -> Origin:
    """Return the origin of a model folder, identified by the hash of the model's files."""
    names = [name for name, kind in entries(folder).items()
             if kind == FILE or (kind == LINK and (folder / name).is_file())]
    files = {name: (folder / name).stat().st_size for name in names}
    origin = Origin(folder.resolve().name, "", files, folder)
    model_files = {name: folder / name for name in (*origin.small, *origin.weights)
                   if name != "README.md"}
    readme = folder / "README.md"
    card: Mapping[str, Any] = {}
    if readme.is_file():
        card = read_card(readme, f"{origin.repo}/README.md")
    return Origin(origin.repo, f"sha256:{hash_files(model_files)}", files, folder, card=card)


def read_card(readme: Path, where: str) -> Mapping[str, Any]:
    """Read the YAML header of a model card.

    Raises:
        ModelError: it is no YAML mapping.
    """
    from huggingface_hub import ModelCard

    try:
        return dict(ModelCard.load(readme, ignore_metadata_errors=True).data.to_dict())
    except Exception as error:  # of PyYAML and of the client's classes, for any text
        raise ModelError(
            f"its YAML header cannot be read: {' '.join(str(error).split())[:200]}.", where=where,
            hint="Correct the lines between the two '---', or delete the file: it is only read for "
            "the licence and the languages.") from error


def fetch(origin: Origin, names: list[str]) -> Path:
    """Return the folder with these files, downloaded if necessary."""
    return origin.folder if origin.pinned is None else download(origin.pinned,
                                                                names)  # type: ignore[return-value]


def read_run_record(origin: Origin) -> dict[str, Any]:
    """Read hubtune's record beside the weights; empty for a model that hubtune did not tune."""
    if RECORD not in origin.files:
        return {}
    return read_model_record(fetch(origin, origin.small) / RECORD, f"{origin.repo}/{RECORD}")
