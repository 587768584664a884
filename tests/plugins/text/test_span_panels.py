"""What became of spans, for the page of a run."""

from __future__ import annotations

from typing import Any

import pytest
from hubtune_plugins.text.tokens import panels


@pytest.mark.parametrize(("right", "given", "said"), [
    ("B-per I-per O", "B-per I-per O", [("right", "per")]),
    ("B-per I-per O", "B-loc I-loc O", [("wrong type", "per")]),
    ("B-per I-per O", "B-per O O", [("wrong borders", "per")]),
    ("B-per I-per O", "O O O", [("missed", "per")]),
    ("O O O", "O O B-loc", [("invented", "loc")]),
    ("B-per O B-loc", "B-per O O", [("right", "per"), ("missed", "loc")]),
])
def test_each_span_is_judged_once(right: str, given: str, said: Any) -> None:
    from hubtune_plugins.text.tokens.tags import spans

    assert panels.judged(spans(tuple(right.split())), spans(tuple(given.split()))) == said


def test_rows_without_an_error_are_not_shown() -> None:
    bars, rows = panels.of_spans([["B-per"], ["B-per"]], [["B-per"], ["O"]], [["Ada"], ["Bob"]])
    assert bars.bars == {"right": {"per": 1.0}, "missed": {"per": 1.0}}  # type: ignore[attr-defined]
    (shown,) = rows.rows  # type: ignore[attr-defined]
    assert (shown.row, shown.expected, shown.given) == (1, "per: Bob", "nothing")
