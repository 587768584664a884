"""Repos on disk: their commits, branches, tags and pull request refs. Knows nothing of HTTP, users or tokens."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hubtune.testing.hub.refusals import NoSuchRepo, NoSuchRevision, StaleParent, Taken, Unacceptable
from hubtune.testing.hub.storage import history
from hubtune.testing.hub.storage.blobs import LARGE_PATTERNS, Blobs, Entry, large_entry, remove, write_atomically
from hubtune.testing.hub.storage.history import Change, Commit, Write
from hubtune.testing.hub.storage.xet import Xet

Kind: TypeAlias = Literal["model", "dataset", "space"]
Gate: TypeAlias = Literal["auto", "manual", False]
MAIN = "refs/heads/main"
_ID = re.compile(r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class Repo:
    """What is known of a repo besides its commits. `refs` maps full names (refs/heads/main) to commits."""

    kind: Kind
    id: str
    created: str
    private: bool = False
    gated: Gate = False
    downloads: int = 0
    likes: int = 0
    let_in: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The user or organisation it belongs to; empty for ids without one."""
        return self.id.rpartition("/")[0]


class Store:
    """All repos under one folder. Every change is one file replaced, so a killed server loses nothing it confirmed."""

    def __init__(self, root: Path) -> None:
        self._root = root / "repos"
        self._root.mkdir(parents=True, exist_ok=True)
        self.xet = Xet(root / "xet")
        # Tests seed repos from their own thread while the server answers from another.
        self.lock = threading.RLock()

    def folder(self, kind: Kind, repo_id: str) -> Path:
        """Return where a repo lies, in one folder name as ids with and without a namespace must not collide."""
        if not _ID.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id:
            raise Unacceptable(f"'{repo_id}' is not a repo id: it would be 'namespace/name'.")
        return self._root / f"{kind}s--{repo_id.replace('/', '--')}"

    def blobs(self, repo: Repo) -> Blobs:
        """The contents the repo holds."""
        return Blobs(self.folder(repo.kind, repo.id) / "blobs")

    def get(self, kind: Kind, repo_id: str) -> Repo:
        """The repo of that id."""
        try:
            data = json.loads((self.folder(kind, repo_id) / "repo.json").read_text("utf-8"))
        except (FileNotFoundError, Unacceptable):
            raise NoSuchRepo(f"{kind.capitalize()} '{repo_id}' not found.") from None
        return Repo(**data)

    def all(self, kind: Kind) -> Iterator[Repo]:
        """Every repo of a kind, by id."""
        for path in sorted(self._root.glob(f"{kind}s--*/repo.json")):
            yield Repo(**json.loads(path.read_text("utf-8")))

    @contextmanager
    def edit(self, repo: Repo) -> Iterator[Repo]:
        """The repo's record as it is now, to change; saved at the end, unless something was raised."""
        with self.lock:
            # Read again: between the caller's look and this lock another request may have moved a ref.
            fresh = self.get(repo.kind, repo.id)
            yield fresh
            self._save(fresh)

    def _save(self, repo: Repo) -> None:
        write_json(self.folder(repo.kind, repo.id) / "repo.json", asdict(repo))

    def create(
        self,
        kind: Kind,
        repo_id: str,
        author: str,
        *,
        private: bool = False,
        files: Mapping[str, Path | bytes] | None = None,
    ) -> Repo:
        """A new repo with its first commit: the files given, or only .gitattributes as on the Hub."""
        with self.lock:
            folder = self.folder(kind, repo_id)
            if (folder / "repo.json").exists():
                raise Taken(f"You already created this {kind} repo: {repo_id}")
            (folder / "commits").mkdir(parents=True, exist_ok=True)
            repo = Repo(kind, repo_id, now(), private)
            blobs = self.blobs(repo)
            tree = {path: blobs.add(history.checked_path(path), source) for path, source in (files or {}).items()}
            tree.setdefault(".gitattributes", blobs.put(_gitattributes()))
            self._write(repo, MAIN, (), "initial commit", "", author, tree)
            self._save(repo)
            return repo

    def delete(self, repo: Repo) -> None:
        """The repo and all its contents are gone."""
        with self.lock:
            remove(self.folder(repo.kind, repo.id))

    def move(self, repo: Repo, to: str) -> None:
        """The repo under another id; the old one is free again."""
        with self.lock:
            target = self.folder(repo.kind, to)
            if target.exists():
                raise Taken(f"You already created this {repo.kind} repo: {to}")
            os.replace(self.folder(repo.kind, repo.id), target)
            repo.id = to
            self._save(repo)

    def resolve(self, repo: Repo, revision: str) -> str:
        """The commit a branch, tag, refs/pr/N or commit id stands for."""
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in repo.refs:
                return repo.refs[ref]
        if _COMMIT.fullmatch(revision) and self._commit_path(repo, revision).exists():
            return revision
        raise NoSuchRevision(f"Invalid rev id: {revision}")

    def commit(self, repo: Repo, oid: str) -> Commit:
        """The commit of that full id."""
        return Commit.from_json(json.loads(self._commit_path(repo, oid).read_text("utf-8")))

    def at(self, repo: Repo, revision: str) -> Commit:
        """The commit a revision stands for."""
        return self.commit(repo, self.resolve(repo, revision))

    def log(self, repo: Repo, oid: str) -> list[Commit]:
        """The commit and all before it, newest first; a commit never comes before one that follows it."""
        seen: dict[str, Commit] = {}
        waiting = [oid]
        while waiting:
            if (one := waiting.pop()) not in seen:
                seen[one] = self.commit(repo, one)
                waiting.extend(seen[one].parents)
        children = dict.fromkeys(seen, 0)
        for commit in seen.values():
            for parent in commit.parents:
                children[parent] += 1
        ready, ordered = [oid], list[Commit]()
        while ready:
            ready.sort(key=lambda one: seen[one].date)
            ordered.append(commit := seen[ready.pop()])
            for parent in commit.parents:
                children[parent] -= 1
                if not children[parent]:
                    ready.append(parent)
        return ordered

    def add(
        self,
        repo: Repo,
        ref: str,
        changes: Iterable[Change],
        title: str,
        author: str,
        message: str = "",
        parent: str | None = None,
    ) -> Commit:
        """Put one commit on a ref, all changes or none. `parent`: the head the caller believes in, 7 digits or more."""
        with self.edit(repo) as fresh:
            head = fresh.refs[ref]
            if parent is not None and (len(parent) < 7 or not head.startswith(parent)):
                raise StaleParent("A commit has happened since. Please refresh and try again.")
            tree = history.apply(self.commit(fresh, head).tree, changes)
            return self._write(fresh, ref, (head,), title, message, author, tree)

    def check(self, repo: Repo, start: str, changes: Iterable[Change]) -> None:
        """Refuse changes that could not be committed on top of that commit."""
        history.apply(self.commit(repo, start).tree, changes)

    def merge(self, repo: Repo, ref: str, other: str, tree: history.Tree, title: str, author: str) -> Commit:
        """Put a commit with two parents on a ref."""
        with self.edit(repo) as fresh:
            return self._write(fresh, ref, (fresh.refs[ref], other), title, "", author, tree)

    def seed(self, repo: Repo, files: Mapping[str, Path | bytes], author: str) -> str:
        """Make main hold exactly these files; the same files again make no commit."""
        with self.lock:
            blobs, tree = self.blobs(repo), self.commit(repo, repo.refs[MAIN]).tree
            writes = [Write(path, blobs.add(history.checked_path(path), source)) for path, source in files.items()]
            kept = {one.path for one in writes} | {".gitattributes"}
            gone = [history.Delete(path) for path in tree if path not in kept]
            if not gone and all(tree.get(one.path) == one.entry for one in writes):
                return repo.refs[MAIN]
            return self.add(repo, MAIN, [*gone, *writes], "Update files", author).oid

    def large_entry(self, repo: Repo, sha256: str) -> Entry | None:
        """The entry for a large file the repo holds the content of."""
        path = self.blobs(repo).large(sha256)
        return large_entry(sha256, path.stat().st_size) if path.exists() else None

    def _write(
        self, repo: Repo, ref: str, parents: tuple[str, ...], title: str, message: str, author: str, tree: history.Tree
    ) -> Commit:
        commit = history.new_commit(parents, title, message, author, now(), tree)
        # The ref goes last: until then nothing points at the commit, and a crash leaves the old head in place.
        write_json(self._commit_path(repo, commit.oid), commit.to_json())
        repo.refs[ref] = commit.oid
        return commit

    def _commit_path(self, repo: Repo, oid: str) -> Path:
        return self.folder(repo.kind, repo.id) / "commits" / f"{oid}.json"


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replace a JSON file in one step."""
    write_atomically(path, json.dumps(data, indent=1).encode())


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _gitattributes() -> bytes:
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE_PATTERNS).encode()
