"""Commits and the arithmetic of file trees: apply changes, list, compare, merge. Pure values, no disk."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from hubtune.testing.hub.refusals import NoSuchEntry, Unacceptable
from hubtune.testing.hub.storage.blobs import Entry

Tree: TypeAlias = Mapping[str, Entry]


@dataclass(frozen=True)
class Write:
    """Put this content at this path."""

    path: str
    entry: Entry


@dataclass(frozen=True)
class Delete:
    """Take the file at this path away, or the folder and all below it."""

    path: str
    folder: bool = False


Change: TypeAlias = Write | Delete


@dataclass(frozen=True)
class Commit:
    """One immutable state of a repo, named by the hash of all that it says."""

    oid: str
    parents: tuple[str, ...]
    title: str
    message: str
    author: str
    date: str
    tree: Tree = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return what is kept on disk."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Commit:
        """The reverse of `to_json`."""
        tree = {path: Entry(**entry) for path, entry in data["tree"].items()}
        return cls(**{**data, "parents": tuple(data["parents"]), "tree": tree})


def new_commit(parents: Iterable[str], title: str, message: str, author: str, date: str, tree: Tree) -> Commit:
    """A commit that knows its own name."""
    draft = Commit("", tuple(parents), title, message, author, date, dict(sorted(tree.items())))
    oid = hashlib.sha1(json.dumps(draft.to_json(), sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    return Commit(oid, draft.parents, title, message, author, date, draft.tree)


def apply(tree: Tree, changes: Iterable[Change]) -> dict[str, Entry]:
    """The tree after the changes, in their order."""
    after = dict(tree)
    for change in changes:
        if isinstance(change, Write):
            after[checked_path(change.path)] = change.entry
        elif change.folder:
            _delete_folder(after, change.path)
        elif after.pop(change.path, None) is None:
            raise NoSuchEntry(f"A file with this name doesn't exist: {change.path}")
    for path in after:
        if clash := next((folder for folder in _folders_of(path) if folder in after), None):
            raise Unacceptable(f"'{clash}' cannot be a file and a folder at once.")
    return after


def _delete_folder(tree: dict[str, Entry], folder: str) -> None:
    inside = [path for path in tree if path.startswith(folder.rstrip("/") + "/")]
    if not inside:
        raise NoSuchEntry(f"A folder with this name doesn't exist: {folder}")
    for path in inside:
        del tree[path]


def checked_path(path: str) -> str:
    """The path, if a repo may hold a file there."""
    if any(part in ("", ".", "..", ".git") for part in path.split("/")) or "\\" in path or "\0" in path:
        raise Unacceptable(f"'{path}' is not a path a repo may hold.")
    return path


def _folders_of(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def folders(tree: Tree) -> dict[str, str]:
    """Every folder of the tree and an id that changes with anything below it."""
    hashes: dict[str, Any] = {}
    for path, entry in sorted(tree.items()):
        for folder in _folders_of(path):
            known = hashes.setdefault(folder, hashlib.sha1(usedforsecurity=False))
            known.update(f"{path}\0{entry.oid}\n".encode())
    return {folder: known.hexdigest() for folder, known in hashes.items()}


def listing(tree: Tree, folder: str, recursive: bool, commit: str) -> list[tuple[str, Entry | str]]:
    """Return what lies in a folder: (path, entry) for files, (path, id) for folders, by name."""
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    below: dict[str, Entry | str] = {**tree, **folders(tree)}
    found = [(path, what) for path, what in sorted(below.items()) if path.startswith(prefix)]
    if prefix and not found:
        raise NoSuchEntry(f"No folder '{folder}' in this revision.", commit)
    return found if recursive else [(path, what) for path, what in found if "/" not in path[len(prefix) :]]


def last_touched(
    history: Iterable[Commit], paths: Iterable[str], parent_of: Callable[[str], Commit]
) -> dict[str, Commit]:
    """For each file or folder the newest commit of the history that changed it."""
    missing, touched = set(paths), dict[str, Commit]()
    for commit in history:
        before = parent_of(commit.parents[0]).tree if commit.parents else {}
        changed = changed_paths(before, commit.tree)
        for path in list(missing):
            if path in changed or any(one.startswith(f"{path}/") for one in changed):
                touched[path] = commit
                missing.discard(path)
    return touched


def changed_paths(before: Tree, after: Tree) -> set[str]:
    """The files that differ between two trees, come and gone ones included."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def merge(base: Tree, ours: Tree, theirs: Tree) -> tuple[dict[str, Entry], list[str]]:
    """Their changes since the base on top of ours, and the files that both sides changed differently."""
    merged, conflicts = dict(ours), []
    for path in sorted(changed_paths(base, theirs)):
        if base.get(path) != ours.get(path) and ours.get(path) != theirs.get(path):
            conflicts.append(path)
        elif path in theirs:
            merged[path] = theirs[path]
        else:
            merged.pop(path, None)
    return merged, conflicts


def diff(before: Tree, after: Tree, read: Callable[[Entry], bytes]) -> str:
    """The change in git's words; of large files only the names are told."""
    told: list[str] = []
    for path in sorted(changed_paths(before, after)):
        old, new = before.get(path), after.get(path)
        told.append(f"diff --git a/{path} b/{path}\n")
        if any(entry and entry.sha256 for entry in (old, new)):
            told.append(f"Binary files a/{path} and b/{path} differ\n")
            continue
        sides = [read(entry).decode(errors="replace").splitlines(True) if entry else [] for entry in (old, new)]
        names = [f"a/{path}" if old else "/dev/null", f"b/{path}" if new else "/dev/null"]
        told.extend(difflib.unified_diff(sides[0], sides[1], names[0], names[1]))
    return "".join(told)
