"""Publish a folder: exported files beside a model's weights, or an app as a Space."""

from __future__ import annotations

from pathlib import Path

from hubtune import errors
from hubtune.hub.download import without_progress
from hubtune.hub.errors import client, page_url, translate_errors
from hubtune.hub.retries import retry
from hubtune.hub.upload import (
    PushResult,
    after_commit,
    check_push,
    create_commit,
    damaged_files,
    full_repo_id,
    undo,
)


def push_beside(folder: Path, repo: str, parent: str) -> PushResult:
    """Publish the folders in a folder beside a model's weights, in place of those of the same names, as one commit on main.

    Args:
        parent: the commit whose weights the files belong to; main has to be at it.

    Raises:
        Conflict: main has moved; nothing was sent.
        HubError: the Hub refused the commit, or lists other hashes than those of the files.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo = check_push(repo)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    message = f"{', '.join(sorted(path.name for path in folder.iterdir()))} with hubtune"
    with translate_errors(repo, writing=True):
        head = retry(lambda: client().model_info(repo), f"asking for {repo}")
        if head.sha != parent:
            raise errors.Conflict(
                f"main of '{repo}' is at {str(head.sha)[:12]}, and the files were made from {parent[:12]}, so nothing was sent.",
                where=repo, hint="Export the model that is on main, or publish the run again.")
        gone = [CommitOperationDelete(one.rfilename) for one in head.siblings or ()
                if one.rfilename not in names and (folder / one.rfilename.partition("/")[0]).is_dir()]
        added = [CommitOperationAdd(name, str(folder / name)) for name in names]
        with without_progress():
            commit, _ = create_commit(repo, [*added, *gone], message, head.sha, False, None)
    result = PushResult(repo, commit, head.sha, f"{page_url(repo)}/commit/{commit}")
    with after_commit(result.url):
        if damaged := damaged_files(folder, names, repo, commit):
            raise undo(result, damaged, message)
    return result


def publish_space(folder: str | Path, repo: str, *, public: bool = False) -> str:
    """Publish a folder with an app as a Gradio Space; returns its address. A new Space is private unless `public`."""
    repo = full_repo_id(repo)
    with translate_errors(repo, writing=True), without_progress():
        retry(lambda: client().create_repo(repo, repo_type="space", space_sdk="gradio", private=not public, exist_ok=True),
              f"creating {repo}")
        retry(lambda: client().upload_folder(repo_id=repo, folder_path=str(folder), repo_type="space",
                                             commit_message="Demo with hubtune"), f"the commit to {repo}")
    return f"{client().endpoint}/spaces/{repo}"
