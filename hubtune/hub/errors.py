"""Errors of the Hub's client as our own, each with the command that mends it."""

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
LOGIN = "Log in with: hf auth login   (or set HF_TOKEN)"


def client() -> HfApi:
    """Return the Hub's client, which names hubtune as the caller."""
    from importlib.metadata import version

    from huggingface_hub import HfApi

    return HfApi(library_name="hubtune", library_version=version("hubtune"))


def offline() -> bool:
    """Return whether the client's offline mode is on, in which nothing may be fetched."""
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


def http_error() -> type[Exception]:
    """Return the base class of the errors of the client's HTTP library.

    That library is httpx under huggingface_hub 1.x and httpx2 under 2.x; the client's own HTTP error derives from either.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError" and issubclass(kind, Exception))


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
    from huggingface_hub import errors as theirs

    try:
        yield
    except (theirs.OfflineModeIsEnabled, theirs.LocalEntryNotFoundError) as error:
        raise (not_cached_error(repo, revision) if offline() else unreachable_error(repo, error)) from error
    except theirs.GatedRepoError as error:
        raise errors.Gated(
            f"'{repo}' is gated: access has to be asked for, and this {describe_token()} has none.",
            hint=f"Ask on its page on the Hub ({page_url(repo, kind)}), then: hf auth login", where=repo,
        ) from error
    except theirs.RevisionNotFoundError as error:
        raise errors.NotFound(
            f"'{repo}' has no revision '{revision}'.", where=repo,
            hint="Name a branch, a tag or a 40-digit commit after '@', or leave it out for the newest.",
        ) from error
    except theirs.RepositoryNotFoundError as error:
        raise not_found_error(repo, kind) from error
    except theirs.HfHubHTTPError as error:
        raise status_error(error, repo, writing) from error
    except theirs.HFValidationError as error:
        raise errors.NotFound(f"'{repo}' is no repository id: {error}", hint="It has the form org/name.") from error
    except (http_error(), ConnectionError, TimeoutError) as error:
        raise unreachable_error(repo, error) from error
    except OSError as error:
        if not str(error).startswith("Consistency check failed"):
            raise
        raise errors.Corrupt(
            f"a download ended early, several times: {str(error).splitlines()[0].removesuffix('.')}.", where=repo,
            hint="Run the same command again; if it ends early again, try another network.",
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("Error while uploading"):
            raise
        raise HubError(
            f"{str(error).removesuffix('.')}: {error.__cause__}", where=repo, hint="Run the same command again; files "
            "that have arrived are not sent twice.",
        ) from error


def describe_token() -> str:
    """Return `token` or `anonymous user`, for messages; never the token itself."""
    from huggingface_hub import get_token

    return "token" if get_token() else "anonymous user"


def page_url(repo: str, kind: Kind = "model") -> str:
    """Return the address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def not_found_error(repo: str, kind: Kind) -> errors.NotFound:
    """Name all three reasons, which the Hub does not tell apart: a missing, misspelt or private repository."""
    from huggingface_hub import get_token

    suggestion = ""
    with contextlib.suppress(Exception):
        list_repos = client().list_models if kind == "model" else client().list_datasets
        words = (repo, repo.split("/")[-1], *re.split(r"[-_/]", repo)[-3:])
        names = {item.id for word in words if len(word) > 2 for item in list_repos(search=word, limit=20)}
        suggestion = did_you_mean(repo, names)
    private = "private, and this token does not open it" if get_token() else "private, and you are not logged in"
    hint = f"Look for it with: hubtune search {repo.split('/')[-1]}" if kind == "model" else "Check the spelling."
    return errors.NotFound(
        f"the Hub has no {kind} '{repo}': it is misspelt, gone, or {private}.{suggestion}",
        hint=hint if get_token() else f"{hint}\n{LOGIN}", where=repo,
    )


def status_error(error: Any, repo: str, writing: bool) -> HubError:
    """Return our error for an HTTP status that the client has no class for."""
    status = error.response.status_code if error.response is not None else 0
    message = (error.server_message or str(error)).strip().splitlines()[0][:300] if str(error) else ""
    if status == 401:
        return errors.BadToken(f"the Hub does not accept this {describe_token()}: {message}", hint=LOGIN, where=repo)
    if status == 403:
        action = "may not write to" if writing else "may not do this on"
        return errors.Forbidden(
            f"this {describe_token()} {action} '{repo}': {message}", where=repo,
            hint="Use a token with write access: hf auth login. In somebody else's repository, propose with --pr.",
        )
    if status in (409, 412):
        return errors.Conflict(f"'{repo}' changed meanwhile: {message}", hint="Run the same command again.", where=repo)
    return HubError(f"the Hub answered {status}: {message}", hint="Run the same command again in a while.", where=repo)


def not_cached_error(repo: str, revision: str | None) -> errors.Offline:
    """Return the error for a repository that is not in the cache while offline mode is on."""
    at = f"@{revision}" if revision else ""
    return errors.Offline(
        f"offline mode is on and '{repo}{at}' is not in the cache.", where=repo,
        hint=f"Fetch it while online with: hf download {repo}   (or unset HF_HUB_OFFLINE)",
    )


def unreachable_error(repo: str, error: Exception) -> errors.Offline:
    """Return the error for a Hub that does not answer."""
    from huggingface_hub import constants

    return errors.Offline(
        f"the Hub ({constants.ENDPOINT}) cannot be reached: {type(error.__cause__ or error).__name__}.", where=repo,
        hint="Check the network. What is in the cache can be used with: HF_HUB_OFFLINE=1 hubtune ...",
    )
