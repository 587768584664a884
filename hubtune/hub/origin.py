"""A model's source: a repository of the Hub at a commit, or a local folder with its hash."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from hubtune.errors import ModelError, listing
from hubtune.files import FILE, LINK, entries, hash_files
from hubtune.hub.download import PinnedRepo, download, resolve, split_id
from hubtune.record import RECORD, read_model_record

PLAIN = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
VARIANT = re.compile(r"model\.(?P<variant>[\w-]+?)(-\d+-of-\d+)?\.safetensors")
"""Names of weight files of a variant; transformers writes `model.fp16-00001-of-00002.safetensors`."""
FINEST = ("fp32",)
"""Variants that are taken before others."""
MODULES = "modules.json"
"""The list of modules of a model of sentence-transformers; the first may be in a sub-folder."""
SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".md", ".vocab", ".spm")


@dataclass(frozen=True)
class Origin:
    """A model's source: a repository at a commit, or a local folder with its files' sha256.

    files: sizes by path, of the model's folder in the repository.
    folder: of the model, where it is local.
    subfolder: the path of the model's folder in the repository; empty: its top.
    whole: sizes of all files of the repository, where the model is in a sub-folder.
    adapter: of PEFT, that is merged into the model when it is loaded.
    runs_code: the user named the code beside the weights (`--trust-code`), so that it may run.
    """

    repo: str
    commit: str
    files: Mapping[str, int]
    folder: Path | None = None
    pinned: PinnedRepo | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    runs_code: bool = False
    subfolder: str = ""
    whole: Mapping[str, int] = field(default_factory=dict)
    adapter: Origin | None = None

    @property
    def outer(self) -> Mapping[str, int]:
        """Sizes of all files of the repository, by their path in it."""
        return self.whole or self.files

    @property
    def variant(self) -> str | None:
        """The variant that the weights are of, such as `fp16` of `model.fp16.safetensors`; None: of none."""
        top = [name for name in self.files if "/" not in name]
        if any(PLAIN.fullmatch(name) for name in top):
            return None
        found = {match["variant"] for name in top if (match := VARIANT.fullmatch(name))}
        return min(found, key=lambda name: (name not in FINEST, name), default=None)

    @property
    def weights(self) -> list[str]:
        """Names of the model's safetensors files: one, or several shards; of one variant."""
        top = [name for name in self.files if "/" not in name and name.endswith(".safetensors")]
        variant = self.variant
        if variant is not None:
            return sorted(name for name in top if (match := VARIANT.fullmatch(name))
                          and match["variant"] == variant)
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
            **({"folder": self.subfolder} if self.subfolder else {}),
            **({"adapter": {"repo": self.adapter.repo, "commit": self.adapter.commit,
                            "local": self.adapter.pinned is None}} if self.adapter else {}),
        }


def locate(model: str, commit: str | None = None) -> Origin:
    """Find a model by folder or by `org/name[:folder][@revision]` and pin its commit.

    No weights are downloaded.

    Raises:
        ModelError: no such folder.
        HubError: the Hub does not have it or denies access.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return in_first_module(local_origin(path.resolve()))  # a link to a folder is one, too
    if path.is_file():
        raise ModelError(
            f"'{model}' is a file; a model is the folder that holds it, with its config.json and "
            "tokenizer.",
            hint=f"Give the folder: --model {shlex.quote(str(Path(model).parent))}")
    if path.is_absolute() or model.startswith((".", "~")):
        raise ModelError(f"there is no folder '{model}'.",
                         hint="Give a folder, or a Hub id such as org/name.")
    name, folder, at = split_folder(model)
    repo, revision = split_id(name + at)
    pinned = resolve(repo, commit or revision)
    origin = Origin(
        pinned.repo, pinned.commit, {file.path: file.size for file in pinned.files}, pinned=pinned,
        card=pinned.card
    )
    return in_subfolder(origin, folder) if folder else in_first_module(origin)


def pinned_address(record: Mapping[str, Any]) -> str:
    """Return `org/name[:folder]@commit` of a model of the Hub, from `Origin.as_record`."""
    folder = f":{record['folder']}" if record.get("folder") else ""
    return f"{record['repo']}{folder}@{record['commit']}"


def split_folder(model: str) -> tuple[str, str, str]:
    """Divide `org/name:folder@revision` into `org/name`, `folder` and `@revision`; both may be empty."""
    match = re.fullmatch(r"(?P<name>[\w./-]+):(?P<folder>[\w./-]+)(?P<at>@[\w./-]+)?", model)
    if match is None:
        return model, "", ""
    return match["name"], match["folder"].strip("/"), match["at"] or ""


def in_subfolder(origin: Origin, subfolder: str) -> Origin:
    """Return the origin of the model in a sub-folder of a repository.

    Raises:
        ModelError: there is no such folder.
    """
    start = f"{subfolder}/"
    files = {name.removeprefix(start): size for name, size in origin.files.items()
             if name.startswith(start)}
    if not files:
        folders = sorted({name.rpartition("/")[0] for name in origin.files if "/" in name})
        raise ModelError(f"'{origin.repo}' has no folder '{subfolder}'.", where=origin.repo,
                         hint=f"It has: {listing(folders, 8) or 'no folders'}")
    folder = None if origin.folder is None else origin.folder / subfolder
    return replace(origin, files=files, folder=folder, subfolder=subfolder, whole=origin.files)


def in_first_module(origin: Origin) -> Origin:
    """Return the origin of a model of sentence-transformers whose first module is in a sub-folder; else the same."""
    if "config.json" in origin.files or MODULES not in origin.files:
        return origin
    try:
        listed = json.loads((fetch(origin, [MODULES]) / MODULES).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"it is no JSON: {error}.", where=f"{origin.repo}/{MODULES}",
                         hint="Fetch the model again.") from error
    first = listed[0] if isinstance(listed, list) and listed else {}
    path = first.get("path") if isinstance(first, dict) else None
    if not isinstance(path, str) or f"{path}/config.json" not in origin.files:
        return origin
    inner = in_subfolder(origin, path)
    if origin.folder is None:
        return inner
    model_files = {name: inner.folder / name for name in (*inner.small, *inner.weights)}  # type: ignore[operator]
    more = {name: origin.folder / name for name in origin.small if name != "README.md"}
    digest = hash_files(more | {f"{path}/{name}": file for name, file in model_files.items()})
    return replace(inner, commit=f"sha256:{digest}")


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
    """Return the model's folder with these files, downloaded if necessary."""
    if origin.pinned is None:
        assert origin.folder is not None
        return origin.folder
    return download(origin.pinned, [in_repository(origin, name) for name in names]) / origin.subfolder


def fetch_outer(origin: Origin, names: list[str]) -> Path:
    """Return the repository's folder with these files, downloaded if necessary."""
    if origin.pinned is not None:
        return download(origin.pinned, names)
    assert origin.folder is not None
    depth = len(PurePosixPath(origin.subfolder).parts)
    return origin.folder.parents[depth - 1] if depth else origin.folder


def in_repository(origin: Origin, name: str) -> str:
    """Return the path in the repository of a file of the model."""
    return f"{origin.subfolder}/{name}" if origin.subfolder else name


def read_run_record(origin: Origin) -> dict[str, Any]:
    """Read hubtune's record beside the weights; empty for a model that hubtune did not tune."""
    if RECORD not in origin.files:
        return {}
    return read_model_record(fetch(origin, origin.small) / RECORD, f"{origin.repo}/{RECORD}")
