"""Errors that a user can fix, each with what is wrong, where, and what to do.

HubtuneError
├── RecipeError              invalid key, value or combination
├── PluginError
│   ├── UnknownPlugin        no task or strategy of that name
│   ├── BrokenPlugin         it fails to import or violates the contract
│   ├── ContractMismatch     it was written for another contract version
│   └── MissingExtra         it needs a package that is not installed
├── DataError                rows that cannot be trained on, with their numbers
├── ModelError               a model that does not fit the task or the strategy
├── HubError
│   ├── NotFound             no such repository, revision or file (or a private one)
│   ├── Gated                access must be requested first
│   ├── BadToken             no token, or one the Hub does not know
│   ├── Forbidden            the token lacks a permission
│   ├── Offline              the Hub cannot be reached
│   ├── Unsafe               only weights that could run code when loaded
│   ├── Corrupt              bytes that differ from the Hub's hashes
│   └── Conflict             a concurrent commit
├── TrainingError
│   └── NonFiniteLoss        loss is not finite, with its step and rows
├── ResumeError              a run that cannot be resumed
├── BusyError                another thread of this process trains or predicts
├── SealError                a run that was changed since its training ended
├── ProofError               the saved model's answers differ from the trained model's
├── EnvironmentProblem       disk, memory, permissions or environment variables of the process
└── UnexpectedError          any other exception, as the command line reports it
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable, Sequence
from typing import Any


class HubtuneError(Exception):
    """An error that the user can fix.

    Attributes:
        message: what is wrong, with the value seen and what would be right.
        hint: what to run or change.
        where: file, repository or row.
    """

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

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Return the document that `--json` prints for an error."""
        values: dict[str, Any] = {
            "kind": self.kind, "message": self.message, "hint": self.hint, "where": self.where
        }
        return {"error": values}

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.hint:
            parts.append(self.hint)
        return "\n".join(parts)


class RecipeError(HubtuneError):
    """Invalid key, value or combination in a recipe."""


class PluginError(HubtuneError):
    """A plugin that cannot be used."""


class UnknownPlugin(PluginError):
    """No task or strategy of that name is installed."""


class BrokenPlugin(PluginError):
    """The plugin is installed, but fails to import or violates the contract."""


class ContractMismatch(PluginError):
    """The plugin was written for another version of the contract."""


class MissingExtra(PluginError):
    """The plugin needs a package that is not installed."""


class DataError(HubtuneError):
    """Rows that cannot be trained on; the message holds their numbers, counted from 1.

    Attributes:
        mend: the operations of `data.clean` that mend the rows.
        problems: of an error that names several problems, each of them as an error.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, where: str | None = None,
        mend: Sequence[str] = (), problems: Sequence[DataError] = (),
    ) -> None:
        super().__init__(message, hint=hint, where=where)
        self.mend = tuple(mend)
        self.problems = tuple(problems)

    @staticmethod
    def of(problems: Sequence[DataError]) -> DataError:
        """Return one error for all problems, with the setting that mends them."""
        if len(problems) == 1:
            one = problems[0]
            fix = clean_hint(one.mend) if one.mend and "data.clean" not in (one.hint or "") else None
            return DataError(one.message, hint="\n".join(filter(None, [one.hint, fix])) or None,
                             where=one.where, mend=one.mend)
        lines = [f"{len(problems)} problems of the data:"]
        for problem in problems:
            fix = f" [data.clean: {', '.join(problem.mend)}]" if problem.mend else ""
            lines.append(f"- {problem.message}{fix}")
        mend = list(dict.fromkeys(name for problem in problems for name in problem.mend))
        hints = [hint for problem in problems if problem.hint
                 for hint in problem.hint.splitlines() if "data.clean" not in hint]
        hint = "\n".join([*dict.fromkeys(hints), *([clean_hint(mend)] if mend else [])])
        return DataError("\n".join(lines), hint=hint or None, where=problems[0].where, mend=mend,
                         problems=problems)

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Return the document that `--json` prints, with every problem by itself."""
        document: dict[str, dict[str, Any]] = {"error": dict(super().as_json()["error"])}
        if self.problems:
            document["error"]["problems"] = [
                {"message": problem.message, "hint": problem.hint, "mend": list(problem.mend)}
                for problem in self.problems]
        return document


def clean_hint(names: Sequence[str]) -> str:
    """Return the setting that lets hubtune mend the data."""
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"Or let hubtune mend the rows: --set 'data.clean=[{quoted}]'"


class ModelError(HubtuneError):
    """A model that does not fit the task or the strategy."""


class HubError(HubtuneError):
    """The Hub refused a request or could not answer it."""


class NotFound(HubError):
    """No such repository, revision or file, or a private one that the token has no access to."""


class Gated(HubError):
    """Access to the repository must be requested first."""


class BadToken(HubError):
    """No token where one is needed, or one that the Hub does not know."""


class Forbidden(HubError):
    """The token is valid but lacks a permission."""


class Offline(HubError):
    """The Hub cannot be reached, or offline mode is on and the cache does not have it."""


class Unsafe(HubError):
    """The repository has only weights in a format that could run code when loaded."""


class Corrupt(HubError):
    """Downloaded bytes differ from the hashes that the Hub lists."""


class Conflict(HubError):
    """A concurrent commit changed the repository."""


class TrainingError(HubtuneError):
    """Training had to stop."""


class NonFiniteLoss(TrainingError):
    """The loss is not finite; the message names the step and its rows."""


class ResumeError(HubtuneError):
    """A run that cannot be resumed."""


class BusyError(HubtuneError):
    """Another thread of this process trains or predicts."""


class SealError(HubtuneError):
    """Files or figures of a run were changed since its training ended."""


class ProofError(HubtuneError):
    """The answers of the saved or published model differ from those of the trained one."""


class EnvironmentProblem(HubtuneError):
    """Disk, memory, permissions or environment variables of the process do not allow the call."""


class UnexpectedError(HubtuneError):
    """An exception that hubtune does not know, as the command line reports it without --debug."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ` Did you mean 'x'?` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" Did you mean '{near[0]}'?" if near else ""


def listing(words: Iterable[object], most: int = 8) -> str:
    """Join words for a message, shortening long lists: `a, b, c and 12 more`."""
    shown = [str(word) for word in words]
    more = len(shown) - most
    return ", ".join(shown) if more <= 0 else f"{', '.join(shown[:most])} and {more} more"


def place_of(error: BaseException) -> str:
    """Return where an exception was raised: `hubtune.training.loop, line 120`."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f"{frame.f_globals.get('__name__')}, line {line}"
