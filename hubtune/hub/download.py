"""Read from the Hub: resolve revisions, download and check files, search models."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubtune import errors
from hubtune.errors import HubError
from hubtune.files import file_sha256, git_blob_sha1
from hubtune.hub.addresses import repository_id
from hubtune.hub.errors import Kind, client, offline, translate_errors
from hubtune.hub.retries import is_unreachable, retry

log = logging.getLogger(__name__)
REPO_ID = re.compile(r"^(?P<repo>[\w][\w.-]*(/[\w][\w.-]*)?)(@(?P<revision>[\w./-]+))?$")


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub, with the `sha256` of a large one, git's `sha1` of a small one."""

    path: str
    size: int
    sha256: str | None = None
    sha1: str | None = None


@dataclass(frozen=True)
class PinnedRepo:
    """A repository at one commit. Later calls name `commit`, never a branch."""

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
    """Split `org/name@revision`, or an address of the Hub, into repository id and revision.

    Raises:
        NotFound: the text has another form.
    """
    match = REPO_ID.match(repository_id(text))
    if match is None:
        raise errors.NotFound(
            f"'{text}' is neither a folder nor a repository id of the form org/name[@revision].")
    return match["repo"], match["revision"]


def resolve(repo: str, revision: str | None = None, kind: Kind = "model") -> PinnedRepo:
    """Resolve a revision to its commit and list the files there, after checking read access.

    In offline mode the client's cache answers; also where no connection is made and the cache has
    the repository.
    """
    if offline():
        return resolve_from_cache(repo, revision, kind)

    get_info = client().model_info if kind == "model" else client().dataset_info
    with translate_errors(repo, revision, kind):
        info: Any = retry(
            lambda: get_info(repo, revision=revision, files_metadata=True), f"asking for {repo}",
            lambda error: cached_instead(error, repo, revision, kind))
        if isinstance(info, PinnedRepo):
            return info
        if info.gated:
            retry(lambda: client().auth_check(repo, repo_type=kind), f"asking for access to {repo}")
    remember_revision(repo, revision, kind, info.sha)
    return pin(info, kind)


def cached_instead(
    error: Exception, repo: str, revision: str | None, kind: Kind
) -> PinnedRepo | None:
    """Return the cached commit where no connection was made, with a warning; None without one."""
    if not is_unreachable(error):
        return None
    try:
        found = resolve_from_cache(repo, revision, kind)
    except HubError:
        return None
    log.warning("the Hub cannot be reached, so it was not asked for a newer %s; the cached commit "
                "%s is used.", repo, found.commit)
    return found


def pin(info: Any, kind: Kind) -> PinnedRepo:
    """Convert the client's description of a repository at a commit."""
    files = tuple(
        RemoteFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None,
                   None if s.lfs else s.blob_id)
        for s in info.siblings or ()
    )
    card = info.card_data.to_dict() if info.card_data else {}
    counts = getattr(info, "safetensors", None)
    return PinnedRepo(
        info.id, info.sha, kind, files, bool(info.gated), bool(info.private),
        getattr(info, "pipeline_tag", None), card, counts.total if counts else None,
    )


def remember_revision(repo: str, revision: str | None, kind: Kind, commit: str) -> None:
    """Record in the client's cache which commit a branch or tag is at, for offline mode.

    The client records it only when downloading by branch, but we download by commit. A cache that
    cannot be written is left unchanged.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if revision == commit:
        return
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind)
    path = folder / "refs" / (revision or constants.DEFAULT_REVISION)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != commit:
            path.write_text(commit, encoding="utf-8")


def resolve_from_cache(repo: str, revision: str | None, kind: Kind) -> PinnedRepo:
    """Resolve a revision to its commit in the client's cache."""
    from huggingface_hub import ModelCard, snapshot_download

    with translate_errors(repo, revision, kind):
        folder = Path(
            snapshot_download(repo, revision=revision, repo_type=kind,
                              allow_patterns=["config.json"], local_files_only=True))
    files = tuple(cached_file(path, folder) for path in sorted(folder.rglob("*")) if path.is_file())
    readme = folder / "README.md"
    card: dict[str, Any] = {}
    if readme.exists():
        try:
            card = ModelCard.load(readme, ignore_metadata_errors=True).data.to_dict()
        except Exception:  # of PyYAML; the Hub gives no card either where it cannot read one
            log.warning("%s: the header of its README.md is no YAML, so its licence is not known.", repo)
    return PinnedRepo(repo, folder.name, kind, files, card=card,
                      pipeline_tag=card.get("pipeline_tag"), cached=True)


def cached_file(path: Path, folder: Path) -> RemoteFile:
    """Describe a file of the client's cache, with the hash that the name of its blob holds."""
    name = path.resolve().name
    known = {64: "sha256", 40: "sha1"
             } if path.is_symlink() and re.fullmatch("[0-9a-f]+", name) else {}
    hashes = {known[len(name)]: name} if len(name) in known else {}
    return RemoteFile(str(path.relative_to(folder)), path.stat().st_size, **hashes)


def download(pinned: PinnedRepo, patterns: Sequence[str]) -> Path:
    """Download matching files at the pinned commit, and check their hashes against the Hub's list.

    The client checks only lengths over plain HTTP, so a damaged file is downloaded once more.

    Raises:
        Corrupt: a file is damaged twice.
    """
    folder = download_snapshot(pinned, patterns)
    damaged = damaged_files(pinned, folder, patterns)
    if damaged and pinned.cached:
        raise errors.Corrupt(
            f"{', '.join(damaged)} in the cache differs from the hash that the Hub listed for it.",
            where=pinned.repo, hint=
            f"Fetch it again while online with: hf download {pinned.repo} --revision "
            f"{pinned.commit} --force-download",
        )
    if damaged:
        for name in damaged:
            (folder / name).resolve().unlink()
            (folder / name).unlink(missing_ok=True)
        folder = download_snapshot(pinned, patterns)
        damaged = damaged_files(pinned, folder, patterns)
    if damaged:
        raise errors.Corrupt(
            f"{', '.join(damaged)} differed from the Hub's hashes in two downloads.",
            where=pinned.repo,
            hint="Something between here and the Hub changes the data; try another network.",
        )
    return folder


def download_snapshot(pinned: PinnedRepo, patterns: Sequence[str]) -> Path:
    """Download matching files into the client's cache, and return their folder."""
    from huggingface_hub import snapshot_download

    with translate_errors(pinned.repo, pinned.commit, pinned.kind), progress_on_terminals():
        return Path(
            retry(
                lambda: snapshot_download(pinned.repo, revision=pinned.commit, repo_type=pinned.
                                          kind, allow_patterns=list(
                                              patterns), local_files_only=pinned.cached,
                                          ), f"downloading {pinned.repo}"))


def damaged_files(pinned: PinnedRepo, folder: Path, patterns: Sequence[str]) -> list[str]:
    """Return the downloaded files whose hash differs from the Hub's."""
    damaged = []
    for file in pinned.files:
        path = folder / file.path
        if not any(fnmatch.fnmatch(file.path, pattern)
                   for pattern in patterns) or not path.exists():
            continue
        wrong_sha256 = file.sha256 and file_sha256(path) != file.sha256
        wrong_size = file.size and path.stat().st_size != file.size
        if wrong_size or wrong_sha256 or (file.sha1 and git_blob_sha1(path) != file.sha1):
            damaged.append(file.path)
    return damaged


def search(words: str, pipeline_tag: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
    """Search the Hub for models whose name contains the words, most downloaded first."""
    if offline():
        raise errors.Offline("offline mode is on, so the Hub cannot be searched.",
                             hint="Unset HF_HUB_OFFLINE.")
    with translate_errors(words):
        models = retry(
            lambda: list(client().list_models(search=words, pipeline_tag=pipeline_tag, sort=
                                              "downloads", limit=limit)), "searching the Hub")
    return [{
        "id": m.id, "pipeline_tag": m.pipeline_tag, "downloads": m.downloads, "likes": m.likes
    } for m in models]


def progress_on_terminals() -> contextlib.AbstractContextManager[None]:
    """Show the client's progress bars on a terminal, but not in a log."""
    return contextlib.nullcontext() if sys.stderr.isatty() else without_progress()


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """Turn off the client's progress bars, which would write between our lines."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()
