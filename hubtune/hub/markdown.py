"""Text of others (labels, names, messages) in Markdown: shown as it is, never read as markup."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that end a line, control a terminal or turn the direction of what follows."""
MARKUP = re.compile(r"([\\`*\[\]#|~$]|(?<![^\W_])_|_(?![^\W_]))")
"""Characters that mark up; an underscore within a word does not."""


def visible(text: object) -> str:
    """Write control characters as escapes: a line break becomes `\\n`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def plain(text: object) -> str:
    """Escape a text for one line or one table cell of Markdown, HTML included."""
    safe = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MARKUP.sub(r"\\\1", safe)


def code(text: object, table: bool = False) -> str:
    """Return a text as a code span, whatever backticks are in it.

    table: in a table, where a bar would end the cell.
    """
    shown = visible(text)
    fence = "`" * (longest_run(shown) + 1)
    pad = " " if shown[:1] in ("`", " ", "") or shown[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{shown.replace('|', chr(92) + '|') if table else shown}{pad}{fence}"


def block(text: str, language: str = "") -> str:
    """Return lines as a code block that nothing in them can close."""
    fence = "`" * max(3, longest_run(text) + 1)
    return f"{fence}{language}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"


def longest_run(text: str) -> int:
    """Return the length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
