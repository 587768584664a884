"""The only module that talks to the Hub: pin a revision, pull files, ask for permission, push one commit.

Every failure comes back as one of our errors, with the command that mends it. `huggingface_hub` is imported
inside the functions, because it reads its environment at import and costs time that `--help` should not pay.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hubtune import errors
from hubtune.errors import HubError, did_you_mean
from hubtune.fingerprint import git_sha1_of, sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset"]
REPO_ID = re.compile(r"^(?P<repo>[\w][\w.-]*(/[\w][\w.-]*)?)(@(?P<revision>[\w./-]+))?$")
STALE = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "adapter/*", "tokenizer*", "vocab*")
LOGIN = "Log in with: hf auth login   (or set HF_TOKEN)"


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


@dataclass(frozen=True)
class Pushed:
    """What a push did: the commit it made, or the pull request it opened."""

    repo: str
    commit: str
    parent: str | None
    url: str
    pr: str | None = None


def api() -> HfApi:
    """The Hub's client, naming hubtune as the caller."""
    from importlib.metadata import version

    from huggingface_hub import HfApi

    return HfApi(library_name="hubtune", library_version=version("hubtune"))


def offline() -> bool:
    """Whether offline mode is on, when nothing may be fetched."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


@contextlib.contextmanager
def translated(repo: str, revision: str | None = None, kind: Kind = "model", writing: bool = False) -> Iterator[None]:
    """Raise what the client raises as one of our errors."""
    import httpx2
    from huggingface_hub import errors as theirs

    try:
        yield
    except theirs.GatedRepoError as error:
        raise errors.Gated(
            f"'{repo}' is gated: access has to be asked for, and this {describe_token()} has none.",
            hint=f"Ask on its page on the Hub ({page(repo, kind)}), then: hf auth login", where=repo,
        ) from error
    except theirs.RevisionNotFoundError as error:
        raise errors.NotFound(
            f"'{repo}' has no revision '{revision}'.", where=repo,
            hint="Name a branch, a tag or a 40-digit commit after '@', or leave it out for the newest.",
        ) from error
    except theirs.RepositoryNotFoundError as error:
        raise not_found(repo, kind) from error
    except theirs.HfHubHTTPError as error:
        raise refused(error, repo, writing) from error
    except (theirs.OfflineModeIsEnabled, theirs.LocalEntryNotFoundError) as error:
        raise not_cached(repo, revision) from error
    except theirs.HFValidationError as error:
        raise errors.NotFound(f"'{repo}' is no repository id: {error}", hint="It has the form org/name.") from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise unreachable(repo, error) from error


def describe_token() -> str:
    """`token` or `anonymous user`, for messages: never the token itself."""
    from huggingface_hub import get_token

    return "token" if get_token() else "anonymous user"


def page(repo: str, kind: Kind = "model") -> str:
    """The address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def not_found(repo: str, kind: Kind) -> errors.NotFound:
    """A missing, misspelt or private repository: the Hub does not tell these apart, so name all three."""
    from huggingface_hub import get_token

    near = ""
    with contextlib.suppress(Exception):
        finder = api().list_models if kind == "model" else api().list_datasets
        names = {item.id for word in (repo, repo.split("/")[-1], *re.split(r"[-_/]", repo)[-3:]) if len(word) > 2
                 for item in finder(search=word, limit=20)}
        near = did_you_mean(repo, names)
    private = "private, and this token does not open it" if get_token() else "private, and you are not logged in"
    hint = f"Look for it with: hubtune search {repo.split('/')[-1]}" if kind == "model" else "Check the spelling."
    return errors.NotFound(
        f"the Hub has no {kind} '{repo}': it is misspelt, gone, or {private}.{near}",
        hint=hint if get_token() else f"{hint}\n{LOGIN}", where=repo,
    )


def refused(error: Any, repo: str, writing: bool) -> HubError:
    """Our error for an HTTP status that has no class of its own."""
    status = error.response.status_code if error.response is not None else 0
    said = (error.server_message or str(error)).strip().splitlines()[0][:300] if str(error) else ""
    if status == 401:
        return errors.BadToken(f"the Hub does not accept this {describe_token()}: {said}", hint=LOGIN, where=repo)
    if status == 403:
        what = "may not write to" if writing else "may not do this on"
        return errors.Forbidden(
            f"this {describe_token()} {what} '{repo}': {said}", where=repo,
            hint="Use a token with write access: hf auth login. In somebody else's repository, propose with --pr.",
        )
    if status in (409, 412):
        return errors.Conflict(f"'{repo}' changed meanwhile: {said}", hint="Run the same command again.", where=repo)
    return HubError(f"the Hub answered {status}: {said}", hint="Run the same command again in a while.", where=repo)


def not_cached(repo: str, revision: str | None) -> errors.Offline:
    """Offline mode is on and the cache does not have it."""
    at = f"@{revision}" if revision else ""
    return errors.Offline(
        f"offline mode is on and '{repo}{at}' is not in the cache.", where=repo,
        hint=f"Fetch it while online with: hf download {repo}   (or unset HF_HUB_OFFLINE)",
    )


def unreachable(repo: str, error: Exception) -> errors.Offline:
    """No answer from the Hub."""
    from huggingface_hub import constants

    return errors.Offline(
        f"the Hub ({constants.ENDPOINT}) cannot be reached: {type(error).__name__}.", where=repo,
        hint="Check the network. What is in the cache can be used with: HF_HUB_OFFLINE=1 hubtune ...",
    )


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
        info: Any = (api().model_info if kind == "model" else api().dataset_info)(
            repo, revision=revision, files_metadata=True
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
        folder = Path(snapshot_download(repo, revision=revision, repo_type=kind, local_files_only=True))
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
        with translated(pinned.repo, pinned.commit, pinned.kind):
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
        if file.sha256 and sha256_of(path) != file.sha256 or file.sha1 and git_sha1_of(path) != file.sha1:
            damaged.append(file.path)
    return damaged


def full_name(repo: str) -> str:
    """`name` as `me/name`: the namespace of the token where none is given."""
    if "/" in repo:
        return repo
    with translated(repo):
        return f"{api().whoami()['name']}/{repo}"


def check_push(repo: str, pr: bool = False) -> str:
    """Refuse now what the Hub would refuse after training; creates nothing. Returns the full name."""
    if offline():
        raise errors.Offline("offline mode is on, so nothing can be pushed.", hint="Unset HF_HUB_OFFLINE.", where=repo)
    if describe_token() != "token":
        raise errors.BadToken(f"pushing to '{repo}' needs a token, and there is none.", hint=LOGIN, where=repo)
    from huggingface_hub.errors import RepositoryNotFoundError

    repo = full_name(repo)
    with translated(repo, writing=True):
        me = api().whoami()
        role = me.get("auth", {}).get("accessToken", {}).get("role", "write")
        if role == "read":
            raise errors.Forbidden(
                f"this token may only read, so it cannot push to '{repo}'.", where=repo,
                hint="Make a token with the role 'write' in the Hub's settings, then: hf auth login",
            )
        try:
            api().auth_check(repo, write=not pr)
        except RepositoryNotFoundError:
            mine = [me["name"], *(org["name"] for org in me.get("orgs", ()))]
            if repo.split("/")[0] not in mine:
                raise errors.Forbidden(
                    f"'{repo}' does not exist, and this token may create repositories only under "
                    f"{', '.join(mine)}.", where=repo, hint=f"For example: {mine[0]}/{repo.split('/')[1]}",
                ) from None
    return repo


def push(folder: Path, repo: str, *, message: str, public: bool = False, pr: bool = False) -> Pushed:
    """Publish a folder as one commit on top of what was there, or as a pull request; then check what arrived."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo = check_push(repo, pr)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with translated(repo, writing=True):
        if not pr:
            api().create_repo(repo, private=not public, exist_ok=True)
        head = api().model_info(repo)
        there = [sibling.rfilename for sibling in head.siblings or ()]
        stale = [n for n in there if n not in names and any(fnmatch.fnmatch(n, pattern) for pattern in STALE)]
        operations = [CommitOperationAdd(name, str(folder / name)) for name in names]
        operations += [CommitOperationDelete(name) for name in stale]
        with without_progress():
            done = commit(repo, operations, message, head.sha, pr)
    pushed = Pushed(repo, done[0], head.sha, f"{page(repo)}/commit/{done[0]}" if not done[1] else done[1], done[1])
    check_arrived(folder, names, repo, pushed.commit)
    return pushed


def commit(repo: str, operations: list[Any], message: str, parent: str | None, pr: bool) -> tuple[str, str | None]:
    """One commit with a parent. After a lost answer, look whether it landed before saying that it failed."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = api().create_commit(
            repo, operations, commit_message=message, parent_commit=parent, create_pr=pr
        )
        return info.oid, info.pr_url
    except (HfHubHTTPError, httpx2.HTTPError, ConnectionError) as error:
        if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code < 500:
            raise
        if not pr:
            history = api().list_repo_commits(repo)
            if len(history) > 1 and history[1].commit_id == parent and history[0].title == message:
                return history[0].commit_id, None
        raise


def check_arrived(folder: Path, names: Sequence[str], repo: str, revision: str) -> None:
    """Compare the hashes that the Hub lists at the new commit with those of the files here."""
    with translated(repo, revision):
        info = api().model_info(repo, revision=revision, files_metadata=True)
    listed = {s.rfilename: (s.lfs.sha256 if s.lfs else None, s.blob_id) for s in info.siblings or ()}
    for name in names:
        sha256, sha1 = listed.get(name, (None, None))
        if not (sha256 == sha256_of(folder / name) if sha256 else sha1 == git_sha1_of(folder / name)):
            raise errors.Corrupt(f"'{name}' on the Hub differs from the one that was sent.", where=repo)


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """The client's own bars would write between our lines."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()


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
