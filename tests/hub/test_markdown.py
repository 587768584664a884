"""Texts of others in Markdown stay text."""

from __future__ import annotations

import pytest

from hubtune.hub import markdown

NASTY = ["`", "``a``", "a`b", "line\nbreak", "![](http://example.org/x.png)", "<img src=x>", "a | b", "# heading", "***", " ", "",
         "\u202eabc", "</code>", "$x$", "&lt;"]


@pytest.mark.parametrize("text", NASTY)
def test_a_code_span_holds_any_text(text: str) -> None:
    span = markdown.code(text)
    fence = span[: len(span) - len(span.lstrip("`"))]
    inner = span[len(fence) : -len(fence)]
    assert fence
    assert span.endswith(fence)
    assert fence not in inner
    assert "\n" not in span
    assert not inner.startswith("`")
    assert not inner.endswith("`")


def test_a_bar_is_escaped_in_a_table() -> None:
    assert markdown.code("a|b", table=True) == r"`a\|b`"
    assert markdown.code("a|b") == "`a|b`"


@pytest.mark.parametrize(("text", "escaped"), [
    ("![](http://x.org)", r"!\[\](http://x.org)"), ("a\nb", r"a\\nb"), ("<b>", "&lt;b&gt;"), ("a|b", r"a\|b"), ("`", r"\`"),
    ("&lt;", "&amp;lt;"), ("tag_name", "tag_name"), ("__a__", r"\_\_a\_\_"), ("accuracy 0.9", "accuracy 0.9"),
])
def test_plain_text_is_no_markup(text: str, escaped: str) -> None:
    assert markdown.plain(text) == escaped


def test_a_block_is_not_closed_by_its_text() -> None:
    assert markdown.block('x = "```"\n', "toml") == '````toml\nx = "```"\n````'
    assert markdown.block("x = 1") == "```\nx = 1\n```"
