"""The Hub: resolve revisions, download files, check permissions, push one commit.

Every failure is raised as one of our errors, with the command that fixes it. `huggingface_hub` is
imported inside functions: it reads its environment at import, and takes time that `--help` should
not spend.
"""

from hubtune.hub.addresses import repository_id
from hubtune.hub.download import PinnedRepo, RemoteFile, download, resolve, search, split_id
from hubtune.hub.errors import not_cached_error
from hubtune.hub.folders import push_beside
from hubtune.hub.upload import PushResult, check_push, push

__all__ = [
    "PinnedRepo", "PushResult", "RemoteFile", "check_push", "download",
    "not_cached_error", "push", "push_beside", "repository_id", "resolve", "search", "split_id",
]
