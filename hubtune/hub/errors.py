"""What the Hub's client raises, as our errors: what is wrong, and the command that mends it."""

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


def api() -> HfApi:
    """The Hub's client, naming hubtune as the caller."""
    from importlib.metadata import version

    from huggingface_hub import HfApi

    return HfApi(library_name="hubtune", library_version=version("hubtune"))


def offline() -> bool:
    """Whether offline mode is on, when nothing may be fetched."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


@contextlib.contextmanager
def translated(repo: str, revision: str | None = None, kind: Kind = "model", writing: bool = False) -> Iterator[None]:
    """Raise what the client raises as one of our errors."""
    import httpx2
    from huggingface_hub import errors as theirs

    try:
        yield
    except (theirs.OfflineModeIsEnabled, theirs.LocalEntryNotFoundError, theirs.RevisionResolutionError) as error:
        raise (not_cached(repo, revision) if offline() else unreachable(repo, error)) from error
    except theirs.GatedRepoError as error:
        raise errors.Gated(
            f"'{repo}' is gated: access has to be asked for, and this {describe_token()} has none.",
            hint=f"Ask on its page on the Hub ({page(repo, kind)}), then: hf auth login", where=repo,
        ) from error
    except theirs.RevisionNotFoundError as error:
        raise errors.NotFound(
            f"'{repo}' has no revision '{revision}'.", where=repo,
            hint="Name a branch, a tag or a 40-digit commit after '@', or leave it out for the newest.",
        ) from error
    except theirs.RepositoryNotFoundError as error:
        raise not_found(repo, kind) from error
    except theirs.HfHubHTTPError as error:
        raise refused(error, repo, writing) from error
    except theirs.HFValidationError as error:
        raise errors.NotFound(f"'{repo}' is no repository id: {error}", hint="It has the form org/name.") from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise unreachable(repo, error) from error
    except RuntimeError as error:
        if not str(error).startswith("Error while uploading"):
            raise
        raise HubError(
            f"{str(error).removesuffix('.')}: {error.__cause__}", where=repo, hint="Run the same command again; what "
            "has arrived is not sent twice.",
        ) from error


def describe_token() -> str:
    """`token` or `anonymous user`, for messages: never the token itself."""
    from huggingface_hub import get_token

    return "token" if get_token() else "anonymous user"


def page(repo: str, kind: Kind = "model") -> str:
    """The address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def not_found(repo: str, kind: Kind) -> errors.NotFound:
    """A missing, misspelt or private repository: the Hub does not tell these apart, so name all three."""
    from huggingface_hub import get_token

    near = ""
    with contextlib.suppress(Exception):
        finder = api().list_models if kind == "model" else api().list_datasets
        names = {item.id for word in (repo, repo.split("/")[-1], *re.split(r"[-_/]", repo)[-3:]) if len(word) > 2
                 for item in finder(search=word, limit=20)}
        near = did_you_mean(repo, names)
    private = "private, and this token does not open it" if get_token() else "private, and you are not logged in"
    hint = f"Look for it with: hubtune search {repo.split('/')[-1]}" if kind == "model" else "Check the spelling."
    return errors.NotFound(
        f"the Hub has no {kind} '{repo}': it is misspelt, gone, or {private}.{near}",
        hint=hint if get_token() else f"{hint}\n{LOGIN}", where=repo,
    )


def refused(error: Any, repo: str, writing: bool) -> HubError:
    """Our error for an HTTP status that has no class of its own."""
    status = error.response.status_code if error.response is not None else 0
    said = (error.server_message or str(error)).strip().splitlines()[0][:300] if str(error) else ""
    if status == 401:
        return errors.BadToken(f"the Hub does not accept this {describe_token()}: {said}", hint=LOGIN, where=repo)
    if status == 403:
        what = "may not write to" if writing else "may not do this on"
        return errors.Forbidden(
            f"this {describe_token()} {what} '{repo}': {said}", where=repo,
            hint="Use a token with write access: hf auth login. In somebody else's repository, propose with --pr.",
        )
    if status in (409, 412):
        return errors.Conflict(f"'{repo}' changed meanwhile: {said}", hint="Run the same command again.", where=repo)
    return HubError(f"the Hub answered {status}: {said}", hint="Run the same command again in a while.", where=repo)


def not_cached(repo: str, revision: str | None) -> errors.Offline:
    """Offline mode is on and the cache does not have it."""
    at = f"@{revision}" if revision else ""
    return errors.Offline(
        f"offline mode is on and '{repo}{at}' is not in the cache.", where=repo,
        hint=f"Fetch it while online with: hf download {repo}   (or unset HF_HUB_OFFLINE)",
    )


def unreachable(repo: str, error: Exception) -> errors.Offline:
    """No answer from the Hub."""
    from huggingface_hub import constants

    return errors.Offline(
        f"the Hub ({constants.ENDPOINT}) cannot be reached: {type(error.__cause__ or error).__name__}.", where=repo,
        hint="Check the network. What is in the cache can be used with: HF_HUB_OFFLINE=1 hubtune ...",
    )
