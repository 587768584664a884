"""A Hub on loopback for tests: starts the server in a thread of this process and offers what a test wants of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from hubtune.testing.hub.accounts import Accounts, Role
from hubtune.testing.hub.faults import Fault, Faults, Served
from hubtune.testing.hub.refusals import NoSuchRepo
from hubtune.testing.hub.site import Site
from hubtune.testing.hub.storage.store import Gate, Kind, Store

if TYPE_CHECKING:
    from hubtune.testing.hub.listener import Listener

HOST = "127.0.0.1"
MULTIPART_ABOVE = 1 << 30
PAGE_SIZE = 1000


class LoopbackHub:
    """A Hub that lives as long as its `with` block. With a `root` of its own choice, its repos outlive it.

    `xet`: large files are sent and fetched by Xet; without it by LFS, which needs HF_HUB_DISABLE_XET=1 in the client.

    `user` is whom `token` belongs to; it may write under its own name and under the `orgs` it is a member of.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        port: int = 0,
        user: str = "tester",
        orgs: tuple[str, ...] = (),
        multipart_above: int = MULTIPART_ABOVE,
        page_size: int = PAGE_SIZE,
        xet: bool = False,
    ) -> None:
        self._private = tempfile.TemporaryDirectory(prefix="loopback-hub-", ignore_cleanup_errors=True)
        self.root = Path(root) if root else Path(self._private.name) / "root"
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.root / ".lock")
        self._own_root()
        self._port = port
        self.user = user
        self.store = Store(self.root)
        self.accounts = Accounts(self.root / "accounts.json")
        self.accounts.add_user(user, orgs)
        self._faults = Faults()
        self._site = Site(self.store, self.accounts, multipart_above, page_size, xet)
        self._listener: Listener | None = None
        self.requests: list[Served] = []

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def start(self) -> None:
        """Serve, and return as soon as requests are answered."""
        # Imported here: without the extra `testing` this module can still be read, and asked what is missing.
        from hubtune.testing.hub.app import create_app
        from hubtune.testing.hub.gateway import Gateway
        from hubtune.testing.hub.listener import Listener

        self._own_root()
        app = Gateway(create_app(self._site), self._faults, self.requests)
        try:
            self._listener = Listener(app, HOST, self._port)
        except BaseException:
            self._lock.release()
            raise
        self._port = self._listener.port

    def stop(self) -> None:
        """Stop serving; `start` again serves the same repos at the same address."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._lock.release()

    def close(self) -> None:
        """Stop for good, and remove what was private to this Hub."""
        self.stop()
        self._private.cleanup()

    @property
    def endpoint(self) -> str:
        """The address for HfApi(endpoint=...)."""
        return f"http://{HOST}:{self._port}"

    @property
    def token(self) -> str:
        """A token of `user` with the role write."""
        return self.accounts.token_of(self.user, "write").value

    def env(self) -> dict[str, str]:
        """Return what a process needs in its environment, added to os.environ: clients read it when they are imported."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "0" if self.xet else "1",
            "HF_TOKEN": self.token,
            "HF_HOME": str(Path(self._private.name) / "hf_home"),
            # Suites that keep themselves off the network set this to 1; loopback is not the network.
            "HF_HUB_OFFLINE": "0",
        }

    @property
    def xet(self) -> bool:
        """Whether large files are sent and fetched by Xet; may be set while clients are served."""
        return self._site.xet

    @xet.setter
    def xet(self, on: bool) -> None:
        self._site.xet = on

    def add_model(
        self,
        repo_id: str,
        files: Path | str | Mapping[str, bytes],
        *,
        private: bool = False,
        gated: Gate | bool = False,
        downloads: int = 0,
        likes: int = 0,
    ) -> str:
        """Put a model on the Hub, from a folder or from {path: content}; returns the commit.

        On a repo that exists, main gets one commit that makes it hold exactly these files.
        """
        return self._add("model", repo_id, files, private, gated, downloads=downloads, likes=likes)

    def add_dataset(
        self,
        repo_id: str,
        files: Path | str | Mapping[str, bytes],
        *,
        private: bool = False,
        gated: Gate | bool = False,
        downloads: int = 0,
        likes: int = 0,
    ) -> str:
        """Put a dataset on the Hub, like `add_model`."""
        return self._add("dataset", repo_id, files, private, gated, downloads=downloads, likes=likes)

    def add_org(self, name: str, members: tuple[str, ...] = ()) -> None:
        """An organisation; its members may see and write all its repos."""
        self.accounts.add_org(name)
        for member in members:
            self.accounts.add_user(member, (name,))

    def add_token(
        self, user: str, role: Role = "write", *, name: str = "", value: str = "", scope: tuple[str, ...] = ()
    ) -> str:
        """A new token; the user is made if need be. `scope`: namespaces and repos a fineGrained one may write to."""
        return self.accounts.add_token(user, role, name, value, scope).value

    def let_in(self, repo_id: str, user: str, kind: Kind = "model") -> None:
        """Let a user through a repo's gate."""
        with self.store.edit(self.store.get(kind, repo_id)) as repo:
            repo.let_in.append(user)

    def fail_next(
        self,
        method: str,
        path: str,
        *,
        status: int | None = 500,
        times: int | None = 1,
        after: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Let the next requests of a method ("*" for any) whose undecoded path has a match of the regex `path` fail.

        `status` is what is answered, None cuts the connection. With `after` the request is carried out first and only
        its answer is lost. `times` None means until `heal`.
        """
        self._fault(method, path, times, status=status, after=after, fails=True, headers=dict(headers or {}))

    def corrupt_next(self, path: str, *, times: int | None = 1) -> None:
        """Serve the next matching files damaged: same length and headers, other bytes."""
        self._fault("GET", path, times, corrupts=True)

    def delay_next(self, method: str, path: str, seconds: float, *, times: int | None = 1) -> None:
        """Answer the next matching requests late."""
        self._fault(method, path, times, delay=seconds)

    def heal(self) -> None:
        """Forget all faults that are still waiting."""
        self._faults.clear()

    def _own_root(self) -> None:
        # Two servers would overwrite each other's refs.
        try:
            if not self._lock.is_locked:
                self._lock.acquire(timeout=0)
        except Timeout:
            self._private.cleanup()
            raise RuntimeError(f"Another server is using {self.root}: stop it, or choose another root.") from None

    def _add(
        self,
        kind: Kind,
        repo_id: str,
        files: Path | str | Mapping[str, bytes],
        private: bool,
        gated: Gate | bool,
        **counts: int,
    ) -> str:
        contents = _contents(files)
        namespace = repo_id.rpartition("/")[0]
        self.accounts.add_namespace(namespace)
        try:
            repo = self.store.get(kind, repo_id)
        except NoSuchRepo:
            repo = self.store.create(kind, repo_id, namespace or self.user, private=private, files=contents)
        commit = self.store.seed(repo, contents, namespace or self.user)
        with self.store.edit(repo) as fresh:
            fresh.private, fresh.gated = private, "auto" if gated is True else gated
            fresh.downloads, fresh.likes = counts["downloads"], counts["likes"]
        return commit

    def _fault(self, method: str, path: str, times: int | None, **what: object) -> None:
        self._faults.add(Fault(method.upper(), re.compile(path), times, **what))  # type: ignore[arg-type]


def _contents(files: Path | str | Mapping[str, bytes]) -> Mapping[str, Path | bytes]:
    if isinstance(files, Mapping):
        return dict(files)
    folder = Path(files)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}' to put on the Hub.")
    # Downloads leave a .cache folder beside the files; it is no part of a model.
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in inside}
    return {name: path for name, path in names.items() if not {".git", ".cache"} & set(name.split("/"))}
