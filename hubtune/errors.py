"""Every error a user can cause, each carrying what is wrong, where, and what to do about it.

HubtuneError
├── RecipeError              a key, value or combination that no run can have
├── PluginError
│   ├── UnknownPlugin        no task or strategy of that name
│   ├── BrokenPlugin         it is installed, and failed to import or to follow the contract
│   ├── ContractMismatch     it was written for another contract version
│   └── MissingExtra         it needs a package that is not installed
├── DataError                rows that cannot be trained on, with their numbers
├── ModelError               a model that does not fit the task or the strategy
├── HubError
│   ├── NotFound             no such repository, revision or file (or a private one)
│   ├── Gated                access has to be asked for first
│   ├── BadToken             no token, or one the Hub does not know
│   ├── Forbidden            a token that may not do this
│   ├── Offline              the Hub cannot be reached
│   ├── Unsafe               only weights that could run code when they are loaded
│   ├── Corrupt              bytes that differ from what the Hub lists
│   └── Conflict             somebody else committed meanwhile
├── TrainingError
│   └── NonFiniteLoss        a loss that is not a number, with its step and rows
├── ResumeError              a run that cannot go on
├── BusyError                another thread of this process trains or predicts
└── ProofError               what was saved does not predict what was trained
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class HubtuneError(Exception):
    """Something a user can mend: `message` says what is wrong, `hint` what to run, `where` the place."""

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.is_shared = False
        """All processes of a training raise it, so the first one alone has to say it."""
        self.exit_code = 1
        """Exit code of the command line."""

    @property
    def kind(self) -> str:
        """The class name in kebab-case, as `--json` prints it: stable across versions."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()

    def as_json(self) -> dict[str, dict[str, str | None]]:
        """The document that `--json` prints for an error."""
        return {"error": {"kind": self.kind, "message": self.message, "hint": self.hint, "where": self.where}}

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.hint:
            parts.append(self.hint)
        return "\n".join(parts)


class RecipeError(HubtuneError):
    """A key, value or combination that no run can have."""


class PluginError(HubtuneError):
    """A plugin that cannot be used."""


class UnknownPlugin(PluginError):
    """No task or strategy of that name is installed."""


class BrokenPlugin(PluginError):
    """The plugin is installed, and failed to import or does not follow the contract."""


class ContractMismatch(PluginError):
    """The plugin was written for another version of the contract."""


class MissingExtra(PluginError):
    """The plugin needs a package that is not installed."""


class DataError(HubtuneError):
    """Rows that cannot be trained on; the message holds their numbers, counted from 1."""


class ModelError(HubtuneError):
    """A model that does not fit the task or the strategy."""


class HubError(HubtuneError):
    """What the Hub refused, or could not answer."""


class NotFound(HubError):
    """No such repository, revision or file, or a private one that this token does not open."""


class Gated(HubError):
    """Access to the repository has to be asked for first."""


class BadToken(HubError):
    """No token where one is needed, or one that the Hub does not know."""


class Forbidden(HubError):
    """The token is known and may not do this."""


class Offline(HubError):
    """The Hub cannot be reached, or offline mode is on and the cache does not have it."""


class Unsafe(HubError):
    """Only weights in a format that could run code when they are loaded."""


class Corrupt(HubError):
    """Downloaded bytes that differ from what the Hub lists."""


class Conflict(HubError):
    """Somebody else committed to the repository meanwhile."""


class TrainingError(HubtuneError):
    """Training had to stop."""


class NonFiniteLoss(TrainingError):
    """A loss that is not a finite number; the message names the step and its rows."""


class ResumeError(HubtuneError):
    """A run that cannot go on from where it was."""


class BusyError(HubtuneError):
    """Another thread of this process trains or predicts."""


class ProofError(HubtuneError):
    """What was saved, or came back from the Hub, does not predict what was trained."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """` Did you mean 'x'?` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" Did you mean '{near[0]}'?" if near else ""


def listing(words: Iterable[object], most: int = 8) -> str:
    """`a, b, c and 12 more`: a list that stays readable in a message."""
    shown = [str(word) for word in words]
    more = len(shown) - most
    return ", ".join(shown) if more <= 0 else f"{', '.join(shown[:most])} and {more} more"
