"""Everything the Hub may refuse, named in its own words; only `answers` knows which status code each becomes."""


class Refusal(Exception):
    """The Hub will not do what was asked; the message says why."""


class Anonymous(Refusal):
    """The request needs a token and has none."""


class BadToken(Refusal):
    """A token was sent that this Hub never issued."""


class Forbidden(Refusal):
    """The token is known, and may not do this."""


class Gated(Refusal):
    """The repo may be seen, its files may not be read."""


class NoSuchRepo(Refusal):
    """No such repo, or none that the caller may know of."""


class NoSuchRevision(Refusal):
    """The repo has no such branch, tag, pull request or commit."""


class NoSuchEntry(Refusal):
    """The revision has no such file or folder."""

    def __init__(self, message: str, commit: str = "") -> None:
        super().__init__(message)
        self.commit = commit


class NoSuchDiscussion(Refusal):
    """The repo has no discussion of that number."""


class Taken(Refusal):
    """A repo, branch or tag of that name exists already."""


class StaleParent(Refusal):
    """The commit was prepared against a head that is no longer the head."""


class Unacceptable(Refusal):
    """The request cannot be understood, or its content is wrong."""


class Conflict(Refusal):
    """The state of the repo does not allow this now."""
