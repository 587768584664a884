"""Discussions and pull requests of a repo: their threads on disk, and merging what a pull request holds."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hubtune.testing.hub.refusals import Conflict, NoSuchDiscussion, Unacceptable
from hubtune.testing.hub.storage import history
from hubtune.testing.hub.storage.history import Commit
from hubtune.testing.hub.storage.store import MAIN, Repo, Store, now, write_json

Event = dict[str, Any]


@dataclass
class Discussion:
    """A thread; as a pull request it also has a base ref and the commit it started from."""

    num: int
    title: str
    author: str
    created: str
    status: str = "open"
    base: str = ""
    start: str = ""
    merged_as: str | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def is_pull_request(self) -> bool:
        """Whether there is something to merge."""
        return bool(self.base)

    @property
    def ref(self) -> str:
        """Where the pull request's own commits go."""
        return f"refs/pr/{self.num}"


class Discussions:
    """The threads of one repo, numbered from 1."""

    def __init__(self, store: Store, repo: Repo) -> None:
        self._store = store
        self._repo = repo
        self._folder = store.folder(repo.kind, repo.id) / "discussions"

    def all(self) -> Iterator[Discussion]:
        """Newest first."""
        for num in sorted((int(path.stem) for path in self._folder.glob("[0-9]*.json")), reverse=True):
            yield self.get(num)

    def get(self, num: int) -> Discussion:
        """The thread of that number."""
        try:
            return Discussion(**json.loads(self._path(num).read_text("utf-8")))
        except FileNotFoundError:
            raise NoSuchDiscussion(f"'{self._repo.id}' has no discussion {num}.") from None

    def open(
        self, title: str, author: str, description: str, status: str = "open", base: str = "", start: str = ""
    ) -> Discussion:
        """A new thread; with a base ref and a start commit, a pull request without commits yet."""
        if len(title.strip()) < 3:
            raise Unacceptable("A title needs at least 3 characters.")
        with self._store.edit(self._repo) as repo:
            num = max((one.num for one in self.all()), default=0) + 1
            opened = Discussion(num, title.strip(), author, now(), status, base, start)
            opened.events.append(comment_event(author, description))
            if base:
                repo.refs[opened.ref] = start
            self._save(opened)
            return opened

    def comment(self, num: int, author: str, text: str) -> Event:
        """Say something."""
        return self._append(num, comment_event(author, text))

    def rename(self, num: int, author: str, title: str) -> Event:
        """Give the thread another title."""
        old = self.get(num).title
        return self._append(num, _event("title-change", author, {"from": old, "to": title}), title=title)

    def set_status(self, num: int, author: str, status: str, text: str | None = None) -> Event:
        """Open or close; opening a draft publishes it."""
        if status not in ("open", "closed", "draft"):
            raise Unacceptable(f"'{status}' is not a status: open or closed would be.")
        if self.get(num).status == "merged":
            raise Conflict("This pull request is merged.")
        if text:
            self.comment(num, author, text)
        return self._append(num, _event("status-change", author, {"status": status}), status=status)

    def conflicts(self, thread: Discussion) -> list[str]:
        """The files that both the pull request and its base have changed since it started."""
        return [] if thread.status in ("merged", "closed") else self._merged(thread)[1]

    def merge(self, num: int, author: str, text: str | None = None) -> Commit:
        """Bring the pull request's changes to its base in one commit."""
        with self._store.lock:
            thread = self.get(num)
            if not thread.is_pull_request or thread.status != "open":
                raise Conflict(f"Discussion {num} is {thread.status}: only an open pull request can be merged.")
            tree, conflicts = self._merged(thread)
            if conflicts:
                raise Conflict(f"Pull request {num} conflicts with {thread.base} in: {', '.join(conflicts)}")
            head = self._store.get(self._repo.kind, self._repo.id).refs[thread.ref]
            title = f"{thread.title} (#{num})"
            commit = self._store.merge(self._repo, thread.base, head, tree, title, author)
            if text:
                self.comment(num, author, text)
            self._append(
                num, _event("status-change", author, {"status": "merged"}), status="merged", merged_as=commit.oid
            )
            return commit

    def commits(self, thread: Discussion) -> list[Commit]:
        """Return what was pushed to the pull request, oldest first."""
        before = {one.oid for one in self._store.log(self._repo, thread.start)}
        after = self._store.log(self._repo, self._store.resolve(self._repo, thread.ref))
        return [one for one in reversed(after) if one.oid not in before]

    def diff(self, thread: Discussion) -> str:
        """Return what the pull request changes."""
        blobs = self._store.blobs(self._repo)
        before = self._store.commit(self._repo, thread.start).tree
        after = self._store.at(self._repo, thread.ref).tree
        return history.diff(before, after, lambda entry: blobs.path(entry).read_bytes())

    def _merged(self, thread: Discussion) -> tuple[history.Tree, list[str]]:
        repo = self._store.get(self._repo.kind, self._repo.id)
        start, ours, theirs = (self._store.at(repo, one).tree for one in (thread.start, thread.base, thread.ref))
        return history.merge(start, ours, theirs)

    def _append(self, num: int, event: Event, **changes: Any) -> Event:
        with self._store.lock:
            thread = self.get(num)
            thread.events.append(event)
            for name, value in changes.items():
                setattr(thread, name, value)
            self._save(thread)
            return event

    def _save(self, thread: Discussion) -> None:
        self._folder.mkdir(exist_ok=True)
        write_json(self._path(thread.num), asdict(thread))

    def _path(self, num: int) -> Path:
        return self._folder / f"{num}.json"


def propose(
    store: Store, repo: Repo, title: str, author: str, text: str, base: str = MAIN, start: str = ""
) -> Discussion:
    """Open a pull request that is not a draft, from a commit or from the base's head."""
    threads = Discussions(store, repo)
    return threads.open(title, author, text, base=base, start=start or repo.refs[base])


def comment_event(author: str, text: str) -> Event:
    """Return what is said in a thread."""
    latest = {"raw": text, "html": text, "updatedAt": now(), "author": {"name": author}}
    return _event("comment", author, {"edited": False, "hidden": False, "latest": latest, "history": [latest]})


def commit_event(commit: Commit) -> Event:
    """A push, as a thread shows it."""
    event = _event("commit", commit.author, {"subject": commit.title, "oid": commit.oid})
    return {**event, "id": commit.oid, "createdAt": commit.date}


def _event(kind: str, author: str, data: dict[str, Any]) -> Event:
    return {"id": uuid.uuid4().hex[:24], "type": kind, "createdAt": now(), "author": {"name": author}, "data": data}
