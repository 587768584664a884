"""Addresses of repositories as people copy them: `https://huggingface.co/...` and `hf://...`, as
repository ids.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from hubtune.errors import NotFound
from hubtune.hub.errors import Kind

SITES = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
"""Hosts of the Hub, beside the one that `HF_ENDPOINT` names."""
PAGES = ("tree", "blob", "resolve", "raw", "commit")
"""Pages of a repository whose address names a revision."""
OPTIONS = {"model": "--model", "dataset": "--data"}


def repository_id(text: str, kind: Kind = "model") -> str:
    """Return `org/name[@revision]` for an address of the Hub; any other text as it is.

    Args:
        text: A repository id, or an address with `https://`, `http://` or `hf://`, or that begins
            with a host of the Hub.
        kind: The kind of repository that is wanted.

    Raises:
        NotFound: an address of another site, of another kind of repository, or of a folder or
            file inside one that cannot be used by itself.
    """
    scheme, separator, rest = text.partition("://")
    if scheme == "hf" and separator:
        parts = [unquote(part) for part in rest.strip("/").split("/")]
    elif scheme in ("http", "https") or text.split("/")[0] in SITES:
        parts = path_on_hub(text if separator else f"https://{text}", kind)
    else:
        return text
    found: Kind | str = parts.pop(0)[:-1] if parts and parts[0] in ("models", "datasets",
                                                                    "spaces") else "model"
    if found != kind:
        hint = f"Give a {found} with {OPTIONS[found]}." if found in OPTIONS else "Give a model or a data set."
        raise NotFound(f"'{text}' is the address of a {found}, not of a {kind}.", hint=hint)
    name, at, revision = "/".join(parts[:2]).partition("@")
    page, *inner = parts[2:] or [""]
    if at or page not in PAGES or not inner:
        inner = parts[2:]
    else:
        revision, *inner = inner
        # A file of the model stands for the model.
        inner = [] if kind == "model" and page != "tree" else inner
    if not all(parts[:2]) or inner:
        problem = f"'{'/'.join(inner)}' inside the repository" if inner else "no repository"
        raise NotFound(f"'{text}' names {problem}.",
                       hint=f"Give the whole repository: {name if inner else 'org/name'}")
    return f"{name}@{revision}" if revision else name


def path_on_hub(address: str, kind: Kind) -> list[str]:
    """Return the parts of an address' path; refuse an address of another site."""
    from huggingface_hub import constants

    split = urlsplit(address)
    if split.hostname not in SITES and split.netloc != urlsplit(constants.ENDPOINT).netloc:
        raise NotFound(
            f"'{address}' is an address of {split.hostname or 'no host'}, not of the Hub "
            f"({constants.ENDPOINT}).",
            hint=
            f"Give {OPTIONS[kind]} a {kind} of the Hub, org/name, or download it and give its "
            "folder.",
        )
    return [unquote(part) for part in split.path.strip("/").split("/")]
