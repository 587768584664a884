"""The only package that talks to the Hub: pin a revision, pull files, ask for permission, push one commit.

Every failure comes back as one of our errors, with the command that mends it. `huggingface_hub` is imported
inside the functions, because it reads its environment at import and costs time that `--help` should not pay.
"""

from hubtune.hub.download import Pinned, RemoteFile, fetch_into, pull, resolve, search, split_id
from hubtune.hub.errors import not_cached
from hubtune.hub.upload import Pushed, check_push, push

__all__ = [
    "Pinned", "Pushed", "RemoteFile", "check_push", "fetch_into", "not_cached", "pull", "push", "resolve", "search", "split_id",
]
