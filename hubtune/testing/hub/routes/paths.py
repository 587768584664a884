"""Path parameters of the Hub's addresses, matched on the undecoded path: in it `refs%2Fpr%2F1` is one segment."""

from __future__ import annotations

from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor

API = "/api/{kind:hub_kind}"
REPO = API + "/{repo:hub_repo}"


class _Decoded(Convertor[str]):
    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


class _Segment(_Decoded):
    regex = "[^/]+"


class _RepoId(_Decoded):
    regex = "[^/]+/[^/]+|[^/]+"


class _FilePath(_Decoded):
    regex = ".+"


class _Kind(Convertor[str]):
    regex = "models|datasets|spaces"

    def convert(self, value: str) -> str:
        return value.removesuffix("s")

    def to_string(self, value: str) -> str:
        return f"{value}s"


register_url_convertor("hub_kind", _Kind())
register_url_convertor("hub_repo", _RepoId())
register_url_convertor("hub_segment", _Segment())
register_url_convertor("hub_path", _FilePath())


def of_files(tail: str) -> tuple[str, str]:
    """The two forms of an address outside /api: datasets and spaces have a prefix, models have none."""
    return "/{kind:hub_kind}/{repo:hub_repo}" + tail, "/{repo:hub_repo}" + tail
