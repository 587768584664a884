"""Files that a .gitignore keeps out of a commit: names, globs and folders, without negation."""

from __future__ import annotations

import fnmatch


def is_ignored(path: str, gitignore: str) -> bool:
    """Return whether one of the patterns fits the path or a folder it lies in."""
    patterns = [line.strip() for line in gitignore.splitlines() if line.strip() and not line.startswith(("#", "!"))]
    return any(_fits(path, pattern) for pattern in patterns)


def _fits(path: str, pattern: str) -> bool:
    parts = path.split("/")
    above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    if pattern.endswith("/"):
        above, pattern = above[:-1], pattern[:-1]
    # A slash anywhere else ties a pattern to the root; without one it is about names at any depth.
    if "/" in pattern:
        return any(fnmatch.fnmatchcase(one, pattern.lstrip("/")) for one in above)
    return any(fnmatch.fnmatchcase(one.rsplit("/", 1)[-1], pattern) for one in above)
