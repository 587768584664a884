"""Write to the Hub: check permissions, push one commit, and check the uploaded files."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtune import errors
from hubtune.errors import HubError, SealError
from hubtune.files import file_sha256, git_blob_sha1
from hubtune.hub.addresses import repository_id
from hubtune.hub.download import without_progress
from hubtune.hub.errors import LOGIN, client, describe_token, offline, page_url, translate_errors
from hubtune.hub.retries import retry

if TYPE_CHECKING:
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationCopy,
        CommitOperationDelete,
        Discussion,
    )

    Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

STALE = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json",
    "adapter/*", "adapter_config.json", "adapter_model*", "generation_config.json",
    "tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json",
    "chat_template*", "additional_chat_templates/*", "spiece*", "sentencepiece*", "*.spm",
    "*.model", "*.tiktoken", "*processor_config.json", "modules.json", "[0-9]_*/*",
    "sentence_bert_config.json", "config_sentence_transformers.json",
)
"""Files of an earlier model that would be loaded beside the new one, and are deleted."""
EXPORT = "export.json"
"""File in a folder of exported files, which belong to the weights beside them and go with them."""


@dataclass(frozen=True)
class PushResult:
    """The commit of a push; with `pr`, the address of its pull request."""

    repo: str
    commit: str
    parent: str | None
    url: str
    pr: str | None = None


def full_repo_id(repo: str) -> str:
    """Return `me/name` for `name`: the namespace of the token where none is given; and the id for
    an address.
    """
    repo = repository_id(repo)
    if "/" in repo:
        return repo
    with translate_errors(repo):
        return f"{retry(client().whoami, 'asking who the token belongs to')['name']}/{repo}"


def check_push(repo: str, pr: bool = False) -> str:
    """Check in advance whether the Hub would refuse the push. Creates nothing.

    Returns:
        The repository id with its namespace.

    Raises:
        HubError: no network, no token, or a token that may not write there.
    """
    if offline():
        raise errors.Offline("offline mode is on, so nothing can be pushed.",
                             hint="Unset HF_HUB_OFFLINE.", where=repo)
    if describe_token() != "token":
        raise errors.BadToken(f"pushing to '{repo}' needs a token, but there is none.", hint=LOGIN,
                              where=repo)
    from huggingface_hub.errors import RepositoryNotFoundError

    repo = full_repo_id(repo)
    with translate_errors(repo, writing=True):
        me = retry(client().whoami, "asking who the token belongs to")
        role = me.get("auth", {}).get("accessToken", {}).get("role", "write")
        if role == "read":
            raise errors.Forbidden(
                f"this token is read-only, so it cannot push to '{repo}'.", where=repo, hint=
                "Create a token with the role 'write' in the Hub's settings, then: hf auth login",
            )
        try:
            retry(lambda: client().auth_check(repo, write=not pr), f"asking for access to {repo}")
        except RepositoryNotFoundError:
            mine = [me["name"], *(org["name"] for org in me.get("orgs", ()))]
            if repo.split("/")[0] not in mine:
                raise errors.Forbidden(
                    f"'{repo}' does not exist, and this token may create repositories only under "
                    f"{', '.join(mine)}.", where=repo,
                    hint=f"For example: {mine[0]}/{repo.split('/')[1]}",
                ) from None
    return repo


def push(
    folder: Path, repo: str, *, message: str, public: bool = False, pr: bool = False,
    hashes: Mapping[str, str] | None = None, is_checked: bool = False, parent: str | None = None,
    description: str = "",
) -> PushResult:
    """Publish a folder as one commit on main, or as a pull request; then check what arrived.

    Where something else arrived than was sent, main is put back to the commit before. A pull
    request of this user with the same title that is still open is updated, so that a repeated
    command opens no second one.

    Args:
        hashes: sha256 of every file by path, which the bytes to send have to have.
        is_checked: `check_push` was called for this repository.
        parent: the commit that main has to be at; None: whichever it is at.
        description: text of the commit, and of a new pull request.

    Raises:
        SealError: a file was changed since it was hashed; nothing was sent.
        Conflict: main is not at `parent`; nothing was sent.
        HubError: the Hub refused the commit, or lists other hashes than those of the files.
    """
    repo = repo if is_checked else check_push(repo, pr)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    additions = add_files(folder, names, hashes)
    with translate_errors(repo, writing=True):
        if not pr:
            retry(lambda: client().create_repo(repo, private=not public, exist_ok=True),
                  f"creating {repo}")
        target = find_pull_request(repo, message) if pr else None
        revision = target.git_reference if target else None
        head = retry(lambda: client().model_info(repo, revision=revision), f"asking for {repo}")
        if parent is not None and head.sha != parent:
            raise errors.Conflict(
                f"main of '{repo}' moved from {parent[:12]} to {str(head.sha)[:12]} while the "
                "models were compared, so nothing was sent.", where=repo,
                hint="Run the same command again, which compares with the new commit.")
        existing = [sibling.rfilename for sibling in head.siblings or ()]
        operations: list[Operation] = [*additions, *delete_stale(existing, names)]
        with without_progress():
            commit, pr_url = create_commit(
                repo, operations, message, head.sha, pr, target, description)
    result = PushResult(repo, commit, head.sha, pr_url or f"{page_url(repo)}/commit/{commit}",
                        pr_url)
    with after_commit(result.url):
        damaged = damaged_files(folder, names, repo, commit)
        if damaged:
            raise undo(result, damaged, message)
    return result


def add_files(
    folder: Path, names: Sequence[str], hashes: Mapping[str, str] | None
) -> list[CommitOperationAdd]:
    """Return the operations that add files; their hashes are of the bytes that will be sent.

    Raises:
        SealError: a file has another hash than it should.
    """
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(name, str(folder / name)) for name in names]
    changed = [operation.path_in_repo for operation in operations if hashes is not None
               and operation.upload_info.sha256.hex() != hashes.get(operation.path_in_repo)]
    if changed:
        raise SealError(f"{errors.listing(changed)} changed while it was being published, so "
                        "nothing was sent.", hint="Run the same command again.")
    return operations


def delete_stale(existing: Sequence[str], names: Sequence[str]) -> list[CommitOperationDelete]:
    """Return the operations that delete what would be loaded beside the new files."""
    from huggingface_hub import CommitOperationDelete

    exports = exported_files(existing)
    return [CommitOperationDelete(name) for name in existing if name not in names
            and (name in exports or any(fnmatch.fnmatch(name, pattern) for pattern in STALE))]


def exported_files(names: Sequence[str]) -> set[str]:
    """Return those of some paths that lie in a folder of exported files."""
    folders = {name.rpartition("/")[0] for name in names if name.endswith(f"/{EXPORT}")}
    return {name for name in names if name.rpartition("/")[0] in folders}


def create_commit(repo: str, operations: Sequence[Operation],
                  message: str, parent: str | None, pr: bool, target: Discussion | None,
                  description: str = "") -> tuple[str, str | None]:
    """Create one commit with a parent. After a lost response, look whether it landed before trying
    again.

    Args:
        repo: Where to.
        operations: Files to write and to delete.
        message: Title of the commit, and of a new pull request.
        parent: Commit that it is made on.
        pr: Commit to a pull request.
        target: The pull request to update; None opens one.
        description: Text of the commit, and of a new pull request.

    Returns:
        Commit and, for a pull request, its address.
    """
    revision = target.git_reference if target else None

    def send() -> tuple[str, str | None]:
        info = client().create_commit(repo, list(operations), commit_message=message,
                                      commit_description=description or None,
                                      parent_commit=parent, create_pr=pr and not target,
                                      revision=revision)
        return info.oid, target.url if target else info.pr_url

    def find_landed(error: Exception) -> tuple[str, str | None] | None:
        opened = find_pull_request(repo, message) if pr else None
        if pr and opened is None:
            return None
        at = opened.git_reference if opened else None
        history = retry(lambda: client().list_repo_commits(repo, revision=at),
                        f"looking whether the commit is in {repo}")
        newest = history[0]
        landed = newest.title == message and newest.commit_id != parent and [
            one.commit_id for one in history[1:2]] == ([parent] if parent else [])
        return (newest.commit_id, opened.url if opened else None) if landed else None

    return retry(send, f"the commit to {repo}", instead=find_landed)


def find_pull_request(repo: str, title: str) -> Discussion | None:
    """Return this user's newest open pull request of a title; None where there is none."""
    me = retry(client().whoami, "asking who the token belongs to")["name"]
    found = retry(
        lambda: list(client().get_repo_discussions(repo, author=me, discussion_type="pull_request",
                                                   discussion_status="open")),
        f"asking for pull requests of {repo}")
    return next((one for one in found if one.is_pull_request and one.title == title), None)


@contextlib.contextmanager
def after_commit(url: str) -> Iterator[None]:
    """Say in errors of the Hub that the commit has landed, and where."""
    try:
        yield
    except HubError as error:
        raise type(error)(error.message, where=error.where, hint="\n".join(filter(None, [
            f"The commit has landed: {url}", error.hint]))) from error


def damaged_files(folder: Path, names: Sequence[str], repo: str, revision: str) -> list[str]:
    """Return the files whose hash at the new commit, as the Hub lists it, is not the local one."""
    listed = list_files(repo, revision)
    damaged = []
    for name in names:
        sha256, sha1 = listed.get(name, (None, None))
        local = folder / name
        if not (sha256 == file_sha256(local) if sha256 else sha1 == git_blob_sha1(local)):
            damaged.append(name)
    return damaged


def list_files(repo: str, revision: str) -> dict[str, tuple[str | None, str | None]]:
    """Return the sha256 of every large file at a revision, and git's id of every file, by path."""
    with translate_errors(repo, revision):
        info = retry(lambda: client().model_info(repo, revision=revision, files_metadata=True),
                     f"asking for {repo}")
    return {file.rfilename: (file.lfs.sha256 if file.lfs else None, file.blob_id)
            for file in info.siblings or ()}


def undo(result: PushResult, damaged: Sequence[str], message: str) -> errors.Corrupt:
    """Put main back to the commit before, or close the pull request; return the error that says so."""
    text = f"{errors.listing(damaged)} on the Hub is not what was sent"
    again = "Run the same command again."
    if result.pr is not None:
        try:
            close_pull_request(result.repo, result.pr, text)
        except HubError as error:
            return errors.Corrupt(f"{text}; the pull request could not be closed: {error.message}",
                                  where=result.repo, hint=f"Do not merge {result.pr}")
        return errors.Corrupt(f"{text}, so the pull request was closed.", where=result.repo,
                              hint=again)
    try:
        restored = restore_main(result, message)
    except HubError as error:
        return errors.Corrupt(
            f"{text}, and main could not be put back to {result.parent}: {error.message}",
            where=result.repo, hint="Do not use the model as it is. " + again)
    return errors.Corrupt(f"{text}, so main was put back to the files of {result.parent}.",
                          where=result.repo, hint=f"Put back by: {restored}\n{again}")


def restore_main(result: PushResult, message: str) -> str:
    """Commit the parent's files on top of a commit; return the address of the new commit.

    Raises:
        HubError: another commit came in between, or the files are not the parent's afterwards.
    """
    from huggingface_hub import CommitOperationCopy, CommitOperationDelete

    assert result.parent is not None
    repo, parent = result.repo, result.parent
    before, now = list_files(repo, parent), list_files(repo, result.commit)
    operations: list[Operation] = [CommitOperationCopy(name, name, src_revision=parent)
                                   for name in before if now.get(name) != before[name]]
    operations += [CommitOperationDelete(name) for name in now if name not in before]
    with translate_errors(repo, writing=True), without_progress():
        commit, _ = create_commit(
            repo, operations, f"Revert: {message}", result.commit, False, None)
    if list_files(repo, commit) != before:
        raise errors.Corrupt(f"the files after {commit} differ from those at {parent}.", where=repo)
    return f"{page_url(repo)}/commit/{commit}"


def close_pull_request(repo: str, address: str, reason: str) -> None:
    """Close a pull request with a comment. address: of its page."""
    number = int(address.rstrip("/").rsplit("/", 1)[1])
    with translate_errors(repo, writing=True):
        retry(lambda: client().change_discussion_status(repo, number, "closed", comment=reason),
              f"closing {address}")
