"""Translate errors of the Hub's client into our own, each with the command that fixes it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from hubtune import errors
from hubtune.errors import HubError, did_you_mean

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset"]
XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
"""An HTTP status in a message of the Xet client, whose errors have no response."""
XET_ERROR = re.compile(r"[A-Z]\w* (error|limited): ")
"""The beginning of its messages, whose exceptions are of built-in classes."""
LOGIN = "Log in with: hf auth login   (or set HF_TOKEN)"


def client() -> HfApi:
    """Return the Hub's client, which names hubtune as the caller."""
    from importlib.metadata import version

    from huggingface_hub import HfApi

    return HfApi(library_name="hubtune", library_version=version("hubtune"))


def offline() -> bool:
    """Tell whether the client's offline mode is on, in which nothing may be fetched."""
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


def http_error() -> type[Exception]:
    """Return the base class of the errors of the client's HTTP library.

    That library is httpx under huggingface_hub 1.x and httpx2 under 2.x; the client's own HTTP
    error derives from either.
    """
    from huggingface_hub.errors import HfHubHTTPError

    bases = (kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception))
    return next(kind for kind in bases if kind.__name__ == "HTTPError")


@contextlib.contextmanager
def translate_errors(
    repo: str, revision: str | None = None, kind: Kind = "model", writing: bool = False
) -> Iterator[None]:
    """Raise errors of the Hub's client as our own.

    Args:
        repo, revision, kind: of the repository that the block is about, for messages.
        writing: the block writes to the repository.

    Raises:
        HubError: or one of its kinds; `__cause__` is the client's error.
    """
    try:
        yield
    except Exception as error:
        ours = refusal(error, repo, revision, kind, writing) or failed_transfer(error, repo)
        if ours is None:
            raise
        raise ours from error


def refusal(
    error: Exception, repo: str, revision: str | None, kind: Kind, writing: bool
) -> HubError | None:
    """Return our error for what the Hub or the client's cache refused; None for any other error."""
    from huggingface_hub import errors as theirs

    match error:
        case theirs.OfflineModeIsEnabled() | theirs.LocalEntryNotFoundError():
            return not_cached_error(repo, revision) if offline() else unreachable_error(repo, error)
        case theirs.GatedRepoError():
            return errors.Gated(
                f"'{repo}' is gated: access must be requested, and this {describe_token()} has "
                "none.", where=repo,
                hint=f"Request it on its page ({page_url(repo, kind)}), then: hf auth login")
        case theirs.RevisionNotFoundError():
            return errors.NotFound(
                f"'{repo}' has no revision '{revision}'.", where=repo, hint="Give a branch, a tag "
                "or a 40-digit commit after '@', or leave it out for the newest.")
        case theirs.RepositoryNotFoundError():
            return not_found_error(repo, kind)
        case theirs.HfHubHTTPError():
            return status_error(error, repo, writing)
        case theirs.HFValidationError():
            return errors.NotFound(f"'{repo}' is not a valid repository id: {error}",
                                   hint="It must have the form org/name.")
    return None


def failed_transfer(error: Exception, repo: str) -> HubError | None:
    """Return our error for a failed connection, download or upload; None for any other error."""
    if is_xet_error(error):
        return xet_error(error, repo)
    if isinstance(error, (http_error(), ConnectionError, TimeoutError)):
        return unreachable_error(repo, error)
    if isinstance(error, OSError) and str(error).startswith("Consistency check failed"):
        first_line = str(error).splitlines()[0].removesuffix(".")
        return errors.Corrupt(
            f"a download ended early, several times: {first_line}.", where=repo,
            hint="Run the same command again; if it ends early again, try another network.")
    if isinstance(error, RuntimeError) and str(error).startswith("Error while uploading"):
        status = status_of(error.__cause__) if error.__cause__ else None
        return HubError(
            f"{str(error).removesuffix('.')}: " + (
                f"the Hub answered {status}" if status else f"no answer ({type(error.__cause__).__name__})") + ".",
            where=repo, hint="Run the same command again; files that have arrived are not sent twice.")
    return None


def is_xet_error(error: Exception) -> bool:
    """Return whether an error is of the Xet client: ConnectionError of uploads, RuntimeError of downloads."""
    return type(error) in (ConnectionError, RuntimeError) and XET_ERROR.match(str(error)) is not None


def xet_error(error: Exception, repo: str) -> HubError:
    """Return our error for a transfer by Xet that failed."""
    status, text = status_of(error), str(error)
    address = re.search(r"https?://[^\s)]+", text)
    at = f" ({'/'.join(address[0].split('/')[:3])})" if address else ""
    hint = "Run the same command again in a while; if that fails too, without Xet: HF_HUB_DISABLE_XET=1 hubtune ..."
    if status:
        return HubError(f"the Xet storage of the Hub{at} answered {status}.", where=repo, hint=hint)
    if "error sending request" in text:
        return errors.Offline(f"the Xet storage of the Hub{at} cannot be reached.", where=repo, hint=hint)
    return HubError(f"a transfer from the Xet storage of the Hub failed: {text.rpartition(': ')[2][:300]}.",
                    where=repo, hint=hint)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error; None where there was no response."""
    response: Any = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    found = XET_STATUS.search(str(error)) if isinstance(error, ConnectionError | RuntimeError) else None
    return int(found[1]) if found else None


def describe_token() -> str:
    """Return `token` or `anonymous user`, for messages; never the token itself."""
    from huggingface_hub import get_token

    return "token" if get_token() else "anonymous user"


def page_url(repo: str, kind: Kind = "model") -> str:
    """Return the address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def not_found_error(repo: str, kind: Kind) -> errors.NotFound:
    """Return an error for a missing, misspelt or private repository; the Hub hides which."""
    from huggingface_hub import get_token

    suggestion = ""
    with contextlib.suppress(Exception):
        list_repos = client().list_models if kind == "model" else client().list_datasets
        words = (repo, repo.split("/")[-1], *re.split(r"[-_/]", repo)[-3:])
        searches = [list_repos(search=word, limit=20) for word in words if len(word) > 2]
        names = {item.id for found in searches for item in found}
        suggestion = did_you_mean(repo, names)
    who = "this token has no access to it" if get_token() else "you are not logged in"
    hint = "Check the spelling."
    if kind == "model":
        hint = f"Look for it with: hubtune search {repo.split('/')[-1]}"
    return errors.NotFound(
        f"the Hub has no {kind} '{repo}': it is misspelt, deleted, or private, and "
        f"{who}.{suggestion}",
        hint=hint if get_token() else f"{hint}\n{LOGIN}", where=repo,
    )


def status_error(error: Any, repo: str, writing: bool) -> HubError:
    """Return our error for an HTTP status that the client has no class for."""
    status = error.response.status_code if error.response is not None else 0
    text = (error.server_message or str(error)).strip().splitlines() if str(error) else []
    message = text[0][:300] if text else ""
    if status == 401:
        message = f"the Hub does not accept this {describe_token()}: {message}"
        return errors.BadToken(message, hint=LOGIN, where=repo)
    if status == 403:
        action = "may not write to" if writing else "may not do this on"
        return errors.Forbidden(
            f"this {describe_token()} {action} '{repo}': {message}", where=repo,
            hint="Use a token with write access: hf auth login. "
            "In somebody else's repository, propose with --pr.",
        )
    if status in (409, 412):
        return errors.Conflict(f"'{repo}' was changed by a concurrent commit: {message}",
                               hint="Run the same command again.", where=repo)
    return HubError(f"the Hub answered {status}: {message}",
                    hint="Run the same command again in a while.", where=repo)


def not_cached_error(repo: str, revision: str | None) -> errors.Offline:
    """Return the error for a repository that is not in the cache while offline mode is on."""
    at = f"@{revision}" if revision else ""
    return errors.Offline(
        f"offline mode is on and '{repo}{at}' is not in the cache.", where=repo,
        hint=f"Fetch it while online with: hf download {repo}   (or unset HF_HUB_OFFLINE)",
    )


def unreachable_error(repo: str, error: Exception) -> HubError:
    """Return the error for a Hub that does not answer, or for a status behind which the client reports a missing file."""
    from huggingface_hub import constants

    cause = error.__cause__ or error
    if status := status_of(cause):
        return HubError(f"the Hub ({constants.ENDPOINT}) answered {status}.", where=repo,
                        hint="Run the same command again in a while.")
    return errors.Offline(
        f"the Hub ({constants.ENDPOINT}) cannot be reached: {type(cause).__name__}.", where=repo,
        hint="Check the network. Cached models can be used with: HF_HUB_OFFLINE=1 hubtune ...",
    )
