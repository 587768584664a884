"""Reading from the Hub: a revision pinned once, files pulled at that commit with their bytes checked, a search."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubtune import errors
from hubtune.files import git_sha1_of, sha256_of
from hubtune.hub.errors import Kind, api, offline, translated

REPO_ID = re.compile(r"^(?P<repo>[\w][\w.-]*(/[\w][\w.-]*)?)(@(?P<revision>[\w./-]+))?$")


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it; `sha256` of large files, `sha1` (git's) of small ones; None where unknown."""

    path: str
    size: int
    sha256: str | None = None
    sha1: str | None = None


@dataclass(frozen=True)
class Pinned:
    """A repository at one commit: every later call uses `commit`, never a branch."""

    repo: str
    commit: str
    kind: Kind = "model"
    files: tuple[RemoteFile, ...] = ()
    gated: bool = False
    private: bool = False
    pipeline_tag: str | None = None
    card: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    cached: bool = False


def split_id(text: str) -> tuple[str, str | None]:
    """`org/name@revision` as its two parts."""
    match = REPO_ID.match(text)
    if match is None:
        raise errors.NotFound(f"'{text}' is neither a folder nor a repository id of the form org/name[@revision].")
    return match["repo"], match["revision"]


def resolve(repo: str, revision: str | None = None, kind: Kind = "model") -> Pinned:
    """Pin a revision to its commit, once: what may be read is known, and what there is to read."""
    if offline():
        return cached(repo, revision, kind)
    with translated(repo, revision, kind):
        # Through the client's own pin, which the cache remembers: offline, the branch then means this commit.
        commit = api().resolve_revision(repo, repo_type=kind, revision=revision)
        info: Any = (api().model_info if kind == "model" else api().dataset_info)(
            repo, revision=commit, files_metadata=True
        )
        if info.gated:
            api().auth_check(repo, repo_type=kind)
    files = tuple(
        RemoteFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None, None if s.lfs else s.blob_id)
        for s in info.siblings or ()
    )
    card = info.card_data.to_dict() if info.card_data else {}
    counted = getattr(info, "safetensors", None)
    return Pinned(
        info.id, info.sha, kind, files, bool(info.gated), bool(info.private), getattr(info, "pipeline_tag", None), card,
        counted.total if counted else None,
    )


def cached(repo: str, revision: str | None, kind: Kind) -> Pinned:
    """What the cache has of a repository, pinned to the commit it was fetched at."""
    from huggingface_hub import ModelCard, snapshot_download

    with translated(repo, revision, kind):
        commit = api().resolve_revision(repo, repo_type=kind, revision=revision, local_files_only=True)
        folder = Path(snapshot_download(
            repo, revision=commit, repo_type=kind, allow_patterns=["config.json"], local_files_only=True
        ))
    files = tuple(
        RemoteFile(str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file()
    )
    readme = folder / "README.md"
    card = ModelCard.load(readme).data.to_dict() if readme.exists() else {}
    return Pinned(repo, folder.name, kind, files, card=card, pipeline_tag=card.get("pipeline_tag"), cached=True)


def pull(pinned: Pinned, patterns: Sequence[str]) -> Path:
    """Fetch the files that fit, at the pinned commit, and check their bytes against what the Hub lists.

    The client itself checks only lengths over plain HTTP, so a damaged file is fetched once more.
    """
    from huggingface_hub import snapshot_download

    def fetch() -> Path:
        with translated(pinned.repo, pinned.commit, pinned.kind), bars_on_terminals():
            return Path(snapshot_download(
                pinned.repo, revision=pinned.commit, repo_type=pinned.kind, allow_patterns=list(patterns),
                local_files_only=pinned.cached,
            ))

    folder = fetch()
    damaged = damaged_files(pinned, folder, patterns)
    if damaged:
        for name in damaged:
            (folder / name).resolve().unlink()
            (folder / name).unlink(missing_ok=True)
        folder = fetch()
        damaged = damaged_files(pinned, folder, patterns)
    if damaged:
        raise errors.Corrupt(
            f"what arrives of {', '.join(damaged)} is not what the Hub lists, twice.", where=pinned.repo,
            hint="Something between here and the Hub changes the bytes; try another network.",
        )
    return folder


def damaged_files(pinned: Pinned, folder: Path, patterns: Sequence[str]) -> list[str]:
    """Pulled files whose hash is not the one the Hub lists."""
    damaged = []
    for file in pinned.files:
        path = folder / file.path
        if not any(fnmatch.fnmatch(file.path, pattern) for pattern in patterns) or not path.exists():
            continue
        if (file.sha256 and sha256_of(path) != file.sha256) or (file.sha1 and git_sha1_of(path) != file.sha1):
            damaged.append(file.path)
    return damaged


def search(words: str, pipeline_tag: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
    """Models of the Hub whose name holds the words, most downloaded first."""
    if offline():
        raise errors.Offline("offline mode is on, so the Hub cannot be searched.", hint="Unset HF_HUB_OFFLINE.")
    with translated(words):
        found = list(api().list_models(search=words, pipeline_tag=pipeline_tag, sort="downloads", limit=limit))
    return [{"id": m.id, "pipeline_tag": m.pipeline_tag, "downloads": m.downloads, "likes": m.likes} for m in found]


def fetch_into(folder: Path, repo: str, commit: str) -> Path:
    """Everything of a repository at a commit, fetched anew and past the cache, into a folder."""
    from huggingface_hub import snapshot_download

    with translated(repo, commit), without_progress():
        snapshot_download(repo, revision=commit, local_dir=folder, cache_dir=folder.with_name("cache"))
    return folder


def bars_on_terminals() -> contextlib.AbstractContextManager[None]:
    """The client's bars where a person sees them move, and nothing in a log."""
    return contextlib.nullcontext() if sys.stderr.isatty() else without_progress()


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """The client's own bars would write between our lines."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()
