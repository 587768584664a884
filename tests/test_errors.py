"""Errors: the tree that is drawn is the tree that is there, and each says what to do."""

from __future__ import annotations

import inspect
import re

import pytest

from hubtune import errors
from hubtune.errors import HubtuneError, did_you_mean, listing

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, HubtuneError)}


def drawn() -> dict[str, str | None]:
    """Parent by class, as the docstring draws it."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^(?P<branches>(?:│   |    )*(?:[├└]── )?)(?P<name>[A-Z]\w+)(?:\s{2,}(?P<said>\S.*))?$", line)
        if found:
            depth = len(found["branches"]) // 4
            path = [*path[:depth], found["name"]]
            parents[found["name"]] = path[depth - 1] if depth else None
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    assert drawn() == {
        name: None if kind is HubtuneError else kind.__bases__[0].__name__ for name, kind in CLASSES.items()
    }


def test_every_error_says_what_it_means() -> None:
    assert [name for name, kind in CLASSES.items() if not kind.__doc__] == []


@pytest.mark.parametrize(("kind", "word"), [
    (errors.DataError, "data-error"), (errors.UnknownPlugin, "unknown-plugin"), (errors.NonFiniteLoss, "non-finite-loss"),
    (errors.Gated, "gated"), (HubtuneError, "hubtune-error"),
])
def test_the_kind_is_the_class_in_kebab_case(kind: type[HubtuneError], word: str) -> None:
    assert kind("x").kind == word


def test_kinds_are_told_apart() -> None:
    assert len({kind("x").kind for kind in CLASSES.values()}) == len(CLASSES)


def test_an_error_as_json_and_as_text() -> None:
    error = errors.DataError("it is empty.", hint="Fill it.", where="reviews.csv")
    assert error.as_json() == {
        "error": {"kind": "data-error", "message": "it is empty.", "hint": "Fill it.", "where": "reviews.csv"}
    }
    assert str(error) == "reviews.csv: it is empty.\nFill it."
    assert errors.DataError("it is empty.").as_json()["error"] == {
        "kind": "data-error", "message": "it is empty.", "hint": None, "where": None
    }
    assert str(errors.DataError("it is empty.")) == "it is empty."


def test_a_near_word_is_suggested_and_a_far_one_is_not() -> None:
    assert did_you_mean("sentimnet", ["text-classification", "sentiment"]) == " Did you mean 'sentiment'?"
    assert did_you_mean("xyz", ["text-classification", "sentiment"]) == ""


def test_long_lists_are_shortened() -> None:
    assert listing([]) == ""
    assert listing("abc") == "a, b, c"
    assert listing(range(12), most=3) == "0, 1, 2 and 9 more"
