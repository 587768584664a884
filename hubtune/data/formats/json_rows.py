"""JSON rows: an object per line, objects over several lines, or a list of objects.

Every row is parsed and checked here before `datasets` reads it, since Arrow's JSON reader crashes on
deep nesting and names no line. Files that are not UTF-8 lines of objects are written as such first.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hubtune.data.files.limits import MAX_COLUMNS, MAX_DEPTH, MAX_ROW
from hubtune.data.files.lines import RowLines
from hubtune.data.files.packed import new_folder
from hubtune.data.files.text import current, open_text, text_file
from hubtune.errors import DataError

KINDS = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number",
         bool: "true or false"}
STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
SURROGATE = re.compile("[\ud800-\udfff]")
Kinds = dict[str, dict[str, tuple[int, int]]]
"""By column, what its values are, with the first row and line where they are so."""


def prepare(paths: Sequence[Path]) -> tuple[list[Path], RowLines, Kinds]:
    """Check every row of some files; return files of JSON lines, the line of each row, and kinds.

    Raises:
        DataError: a row that is no object, too large, too deep or with too many keys.
    """
    lines, kinds, made = RowLines(), Kinds(), []
    for path in paths:
        lines.begin_file(path.name)
        made.append(JsonFile(path, lines, kinds).prepare())
    return made, lines, kinds


class JsonFile:
    """One file of JSON rows, while it is checked."""

    def __init__(self, path: Path, lines: RowLines, kinds: Kinds) -> None:
        self.path, self.lines, self.kinds = path, lines, kinds
        self.nested: set[tuple[str, ...]] = set()
        self.constants = 0
        self.decoder = json.JSONDecoder(parse_constant=self.count_constant)

    def prepare(self) -> Path:
        """Check all rows; return the file, or a copy of it as JSON lines in UTF-8."""
        first, whole = self.first_sign()
        plain = text_file(self.path)
        if first not in ("{", "["):
            raise self.not_json(first)
        if not whole and plain.codec == "utf-8" and not plain.skip:
            rows = self.lines.count
            if self.check_lines():
                return self.path
            self.lines.forget(rows)
            self.constants = 0
        return self.write_lines(self.all_rows(whole))

    def first_sign(self) -> tuple[str, bool]:
        """Return the first character, and whether rows are not lines."""
        with open_text(self.path, lines=False) as file:
            head = file.read(1 << 16).lstrip("\ufeff \t\r\n")
            while not head and (more := file.read(1 << 16)):
                head = more.lstrip("\ufeff \t\r\n")
        line = head.partition("\n")[0].rstrip("\r")
        is_open = line.startswith("{") and len(line) < len(head) and not line.endswith("}")
        return head[:1], head.startswith("[") or is_open

    def check_lines(self) -> bool:
        """Check a file of JSON lines in UTF-8; False if it has to be written anew to be read."""
        with open_text(self.path) as file:
            for number, line in enumerate(file, 1):
                if line[:1] != "{":
                    return False
                self.check(self.parse(line, number), number, line)
        return not self.constants

    def all_rows(self, whole: bool) -> Iterator[Any]:
        """Yield all rows, checked, from lines or from the file as a whole."""
        with open_text(self.path, lines=not whole) as file:
            if not whole:
                for number, found in enumerate(file, 1):
                    if text := found.strip("\ufeff \t\r\n"):
                        row = self.parse(text, number)
                        self.check(row, number, text)
                        yield row
                return
            text = file.read()
        place, line, before = skip_space(text, 0, ""), 1, 0
        is_list = text[place] == "["
        if is_list:
            place = skip_space(text, place + 1, "")
        while place < len(text) and not (is_list and text[place] == "]"):
            line += text.count("\n", before, place)
            before = place
            row, end = self.parse_at(text, place, line)
            if is_list and isinstance(row, str):
                row = {"text": row}
            self.check(row, line, text[place:end])
            yield row
            place = skip_space(text, end, "," if is_list else "")
        if is_list and (place >= len(text) or text[place + 1:].strip()):
            raise DataError("the list of rows is never closed, or something follows it.",
                            where=self.path.name, hint="It may have been cut; write it again.")

    def write_lines(self, rows: Iterator[Any]) -> Path:
        """Write rows as JSON lines in UTF-8, into a temporary folder."""
        copy = new_folder() / f"{self.path.stem}.jsonl"
        with copy.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
        if self.constants:
            current().notes.append(
                f"{self.path.name}: NaN and Infinity ({self.constants}) are not JSON; they are "
                "read as null, a missing value.")
        return copy

    def parse(self, line: str, number: int) -> Any:
        """Parse a line with one row."""
        row, end = self.parse_at(line, 0, number)
        if line[end:].strip():
            raise self.broken(f"something follows it: {line[end:].strip()[:40]!r}", number)
        return row

    def parse_at(self, text: str, place: int, line: int) -> tuple[Any, int]:
        """Parse the value at a place; return it and where it ends."""
        try:
            row, end = self.decoder.raw_decode(text, place)
        except RecursionError:
            raise self.too_deep(line) from None
        except json.JSONDecodeError as error:
            if open_levels(text[place:error.pos]) > MAX_DEPTH:
                raise self.too_deep(line) from None  # Python 3.14 decodes what earlier ones refuse
            near = text[max(place, error.pos - 20):error.pos + 20]
            passed = text[place:error.pos].rstrip().count("\n")
            raise self.broken(f"{error.msg}, at {near!r}", line + passed,
                              text[place:place + 2]) from None
        except ValueError:
            raise self.broken("it has a number with thousands of digits", line) from None
        return row, end

    def check(self, row: Any, line: int, text: str) -> None:
        """Check one row, and add its line and the kinds of its values. text: as it is written."""
        if type(row) is not dict:
            raise self.broken(f"it is {KINDS.get(type(row), 'null')}, not an object with columns",
                              line)
        if len(text) > MAX_ROW:
            raise self.broken(f"it has more than {MAX_ROW:,} characters", line)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            self.check_depth(row, line)
        if "\\u" in text and SURROGATE.search(json.dumps(row, ensure_ascii=False)):
            raise self.broken("it has half of a character (a lone surrogate, \\ud800 to \\udfff)", line)
        for name, value in row.items():
            kind = KINDS.get(type(value))
            if kind is None:
                continue
            known = self.kinds.setdefault(name, {})
            if kind not in known:
                known[kind] = (self.lines.count, line)
            if kind in ("an object", "a list"):
                self.collect_keys(value, (name,))
        if len(self.kinds) + len(self.nested) > MAX_COLUMNS:
            raise self.broken(f"with it, rows have more than {MAX_COLUMNS:,} different keys", line,
                              hint="Keys are columns: write data that differs by row as values.")
        self.lines.append(line)

    def collect_keys(self, value: Any, path: tuple[str, ...]) -> None:
        """Collect the keys of objects inside of a row."""
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, dict):
                for name, inner in item.items():
                    key = (*path, name)
                    self.nested.add(key)
                    if isinstance(inner, dict | list):
                        self.collect_keys(inner, key)
            elif isinstance(item, list):
                self.collect_keys(item, path)

    def check_depth(self, row: Any, line: int) -> None:
        """Refuse a row that is nested deeper than `MAX_DEPTH`."""
        level = [row]
        for _ in range(MAX_DEPTH):
            level = [inner for value in level
                     for inner in (value.values() if isinstance(value, dict) else value)
                     if isinstance(inner, dict | list)]
            if not level:
                return
        raise self.too_deep(line)

    def too_deep(self, line: int) -> DataError:
        """Return the error of a row that is nested too deep."""
        return self.broken(f"it is nested deeper than {MAX_DEPTH} levels", line,
                           hint="Flatten it: no task reads values that lie so deep.")

    def broken(self, reason: str, line: int, start: str = "", hint: str | None = None) -> DataError:
        """Return the error of one row. start: of its text."""
        number = self.lines.count - self.lines.first_rows[-1] + 1
        if start.startswith("{'"):
            hint = "JSON has double quotes; write rows with json.dumps(row), not with str(row)."
        return DataError(f"row {number} (line {line}) cannot be read: {reason}.",
                         where=self.path.name,
                         hint=hint or "Each row is an object, such as: "
                         '{"text": "What a lovely day", "label": "positive"}')

    def not_json(self, first: str) -> DataError:
        """Return the error of a file that is not JSON from its first character on."""
        if not first:
            return DataError("there are no rows in it.", where=self.path.name)
        with open_text(self.path, lines=False) as file:
            start = file.read(60).strip().partition("\n")[0]
        return DataError(f"it is not JSON: it begins with {start!r}.", where=self.path.name,
                         hint="If it is a table, give it its own suffix: "
                         f"mv {shlex.quote(self.path.name)} {shlex.quote(self.path.stem)}.csv")

    def count_constant(self, name: str) -> None:
        """Read NaN and Infinity, which are not JSON, as null, and count them."""
        self.constants += 1


def skip_space(text: str, place: int, separator: str) -> int:
    """Return the place of the next value: after white space and at most one separator."""
    seen = not separator
    while place < len(text) and (text[place] in " \t\r\n\ufeff" or (
            not seen and text[place] == separator)):
        seen = seen or text[place] == separator
        place += 1
    return place


def open_levels(text: str) -> int:
    """Return how many objects and lists are begun in the text and not ended."""
    signs = STRING.sub("", text)
    return signs.count("[") + signs.count("{") - signs.count("]") - signs.count("}")


def explain(kinds: Kinds, rows_of: RowLines) -> DataError | None:
    """Return the error of a column whose values are of several kinds; None if there is none."""
    for name, found in kinds.items():
        if len(found) > 1:
            (one, (first, _)), (other, (second, line)), *_ = found.items()
            return DataError(
                f"'{name}' is {other} in row {second + 1} (line {line}), but {one} in row "
                f"{first + 1} (line {rows_of.line(first)}).", where=rows_of.file(second),
                hint="Give a column values of one kind in all rows.")
    return None


def plain_settings() -> dict[str, Any]:
    """Return the settings with which `datasets` takes rows for rows, not for an agent's traces."""
    from datasets.packaged_modules.json.json import JsonConfig

    return {"parse_agent_traces": False} if hasattr(JsonConfig, "parse_agent_traces") else {}


@contextlib.contextmanager
def silent(datasets: Any) -> Iterator[None]:
    """Keep `datasets` from logging an error that is raised, too."""
    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)
