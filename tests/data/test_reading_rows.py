"""Tables and JSON: rows come back as they are written, or are refused with their row and the line of the file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from hubtune.data import sources
from hubtune.data.files import limits
from hubtune.data.files.lines import RowLines
from hubtune.data.formats import arrow_table
from hubtune.errors import DataError


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Any) -> list[dict[str, Any]]:
    return list(sources.load(path).splits["train"])


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        sources.load(path)
    assert caught.value.where == path.name
    assert str(path.parent) not in str(caught.value)
    return caught.value.message


# -------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(("content", "message"), [
    ("text,label\na,b\n\nc,d,e\n", "row 2 (line 4) has 3 cells, but the header has 2: 'c | d | e'"),
    ("text,label\na,b\n\"c,d\ne,f\n", "a quote that opens in row 2 (line 3) is never closed"),
    ("text,label\n\"a\nb\",x\n\"c\" d,e\n", "a quote closes in the middle of a cell, in row 2 (line 4)"),
    ("text,label\n\"open,b\nc,d\ne,\"f\"\n", "a quote closes in the middle of a cell, in row 1 (lines 2 to 4)"),
    ("\"text,label\na,b\n", "a quote that opens in the header (line 1) is never closed"),
    ("text,label\na,b\ntext,label\nc,d\n", "row 2 (line 3) is the beginning of another file"),
    ("text,label\na,b\n\ufefftext,label\nc,d\n", "row 2 (line 3) is the beginning of another file"),
    ("text,label,text\na,b,c\n", "the header repeats text"),
    (",,\n1,2,3\n", "there is no header line"),
    ('{"text": "a", "label": "b"}\n', "it looks like JSON, not like a table"),
    ('[{"text": "a", "label": "b"}]\n', "it looks like JSON, not like a table"),
    (",".join(map(str, range(100_000))) + "\n", "it has 100,000 columns; at most 10,000 are read"),
])
def test_a_table_that_is_not_whole_is_refused_by_row_and_line(tmp_path: Path, content: str, message: str) -> None:
    assert message in refusal(put(tmp_path, "rows.csv", content))


def test_lines_and_cells_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    size = limits.MAX_ROW + 1
    long = put(tmp_path, "long.csv", b"text,label\na,b\n" + b"x" * size + b",b\n")
    assert "line 3 has more than 33,554,432 characters" in refusal(long)
    cell = put(tmp_path, "cell.csv", b'text,label\na,b\n"' + b"xxxxxxxxx\n" * (size // 10 + 1) + b'",b\n')
    assert "a cell of row 2 (lines 3 to " in refusal(cell)
    line = put(tmp_path, "long.jsonl", b'{"text": "a"}\n{"text": "' + b"x" * size + b'"}\n')
    assert "line 2 has more than 33,554,432 characters" in refusal(line)
    assert csv.field_size_limit() == 131_072  # of the caller's process


def test_names_of_columns_are_stripped_and_empty_ones_are_numbered(tmp_path: Path) -> None:
    assert rows(put(tmp_path, "a.csv", ", text ,label,\n0,a,b,\n")) == [{"column 1": "0", "text": "a", "label": "b", "column 4": ""}]


@pytest.mark.parametrize(("content", "expected"), [
    ('"text, long";label\n"1,5";b\n', [("1,5", "b")]),
    ("text;label\na,b,c;d\ne;f\n", [("a,b,c", "d"), ("e", "f")]),
    ("sep=|\ntext|label\na;b|c\n", [("a;b", "c")]),
    ("text\tlabel\na, b\tc\n", [("a, b", "c")]),
    ("text,label\r\na,b\nc,d\re,f\r\n", [("a", "b"), ("c", "d"), ("e", "f")]),
    ('text,label\n"say ""hi""\n",b\n', [('say "hi"\n', "b")]),
    ('text,label\nsay "hi",b\n', [('say "hi"', "b")]),
])
def test_layouts_of_tables(tmp_path: Path, content: str, expected: list[tuple[str, str]]) -> None:
    assert [tuple(row.values()) for row in rows(put(tmp_path, "rows.csv", content))] == expected


def test_quotes_of_corpora_with_tabs_are_text_and_those_of_excel_enclose_cells(tmp_path: Path) -> None:
    corpus = sources.load(put(tmp_path, "a.tsv", 'text\tlabel\n"Well" he said\tx\n"open\ty\nclosed"\tz\n'))
    assert corpus.splits["train"]["text"][:] == ['"Well" he said', '"open', 'closed"']
    assert "its quotes are read as text" in corpus.notes[0]
    excel = sources.load(put(tmp_path, "b.tsv", 'text\tlabel\n"two\nlines"\tx\n"say ""hi"""\ty\n'))
    assert excel.splits["train"]["text"][:] == ["two\nlines", 'say "hi"']
    assert excel.notes == []


def test_large_tables_are_mapped_from_a_file_and_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "rows.csv", "text,label\n" + "".join(f"text {n},{n % 3}\n" for n in range(20_000)))
    small = sources.load(path).splits["train"]
    monkeypatch.setattr(arrow_table, "IN_MEMORY", 1000)
    large = sources.load(path).splits["train"]
    assert large.cache_files
    assert not small.cache_files
    assert large[:] == small[:]
    assert len(large) == 20_000


def test_the_line_of_each_row_is_known_over_files(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    put(tmp_path, "train/a.csv", "text,label\n\"a\nb\",x\n\nc,y\n")
    put(tmp_path, "train/b.csv", "text,label\nd,x\n")
    lines = sources.load(tmp_path).lines["train"]
    assert [(lines.file(row), lines.line(row)) for row in range(3)] == [("a.csv", 2), ("a.csv", 5), ("b.csv", 2)]
    assert lines.describe([0, 1, 2]) == "lines 2, 5 of a.csv; line 2 of b.csv"


def test_lines_are_kept_where_they_shift_alone() -> None:
    lines = RowLines()
    lines.begin_file("a")
    for row in range(1000):
        lines.append(row + 2 + (row > 500))
    assert len(lines.starts) == 2
    assert [lines.line(row) for row in (0, 500, 501, 999)] == [2, 502, 504, 1002]


# ---------------------------------------------------------------------------------------------------------- JSON


def nested(depth: int) -> str:
    return '{"text": "a"}\n{"text": ' + "[" * depth + "]" * depth + "}\n"


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.jsonl", nested(50_000), "row 2 (line 2) cannot be read: it is nested deeper than 32 levels"),
    ("a.jsonl", nested(900), "row 2 (line 2) cannot be read: it is nested deeper than 32 levels"),
    ("a.jsonl", nested(100), "row 2 (line 2) cannot be read: it is nested deeper than 32 levels"),
    ("a.json", "[" * 50_000, "nested deeper than 32 levels"), ("a.json", '{"a":' * 50_000 + "1" + "}" * 50_000, "nested deeper than 32 levels"),
    ("a.jsonl", '{"a": ' + "[" * 40 + "\n", "row 1 (line 1) cannot be read: it is nested deeper than 32 levels"),
    ("a.jsonl", '{"a": "' + "[" * 40 + '\\"[", x}\n', "row 1 (line 1) cannot be read: Expecting property name"),
    ("a.jsonl", '{"text": "a"}\n\n{"text": \n', "row 2 (line 3) cannot be read: Expecting value"),
    ("a.jsonl", '{"text": "a"}\n{"text": "b"} x\n', "row 2 (line 2) cannot be read: something follows it: 'x'"),
    ("a.jsonl", '{"text": "a"}\n["b"]\n', "row 2 (line 2) cannot be read: it is a list, not an object with columns"),
    ("a.json", '[\n{"text": "a"},\n5]', "row 2 (line 3) cannot be read: it is a number, not an object"),
    ("a.json", '[\n{"text": "a"},\n{"text": "b"}\n', "the list of rows is never closed"),
    ("a.json", '[{"text": "a"}] x', "the list of rows is never closed, or something follows it"),
    ("a.json", '[\n{"text": "a"},\n{"text": b}]', "row 2 (line 3) cannot be read: Expecting value"),
    ("a.jsonl", "text,label\na,b\n", "it is not JSON: it begins with 'text,label'"),
    ("a.jsonl", "{'text': 'a'}\n", "row 1 (line 1) cannot be read: Expecting property name"),
    ("a.jsonl", '{"n": ' + "9" * 5000 + "}\n", "row 1 (line 1) cannot be read: it has a number with thousands of digits"),
    ("a.jsonl", '{"text": "a\\ud83d"}\n', "row 1 (line 1) cannot be read: it has half of a character"),
    ("a.jsonl", "".join(json.dumps({f"key{n}": 1}) + "\n" for n in range(10_001)), "row 10001 (line 10001) cannot be read: with it"),
    ("a.jsonl", json.dumps({"map": {f"key{n}": 1 for n in range(10_001)}}) + "\n", "more than 10,000 different keys"),
])
def test_json_that_is_no_row_is_refused_by_row_and_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    assert message in refusal(put(tmp_path, name, content))


def test_rows_as_deep_as_the_limit_are_read(tmp_path: Path) -> None:
    assert len(rows(put(tmp_path, "a.jsonl", nested(limits.MAX_DEPTH - 1).replace('"a"', "[]")))) == 2


@pytest.mark.parametrize(("name", "content", "lines"), [
    ("a.json", '\n [{"text": "a"},\n {"text": "é"}\n]\n', [2, 3]), ("a.json", '{\n "text": "a"\n}\n{\n "text": "é"\n}\n', [1, 4]),
    ("a.jsonl", '{"text": "a"}\n\n{"text": "é"}', [1, 3]), ("a.jsonl", '\ufeff{"text": "a"}\n\ufeff{"text": "é"}\n', [1, 2]),
    ("a.jsonl", ' {"text": "a"}\r\n\t{"text": "\\u00e9"}\r\n', [1, 2]), ("a.jsonl", '[{"text": "a"}, {"text": "é"}]', [1, 1]),
    ("a.json", '["a", "é"]', [1, 1]),
])
def test_layouts_of_json(tmp_path: Path, name: str, content: str, lines: list[int]) -> None:
    data = sources.load(put(tmp_path, name, content))
    assert [row["text"] for row in data.splits["train"]] == ["a", "é"]
    assert [data.lines["train"].line(row) for row in range(2)] == lines


def test_nan_is_missing_and_said(tmp_path: Path) -> None:
    data = sources.load(put(tmp_path, "a.jsonl", '{"text": "a", "score": NaN}\n{"text": "b", "score": 0.5}\n'))
    assert data.splits["train"]["score"][:] == [None, 0.5]
    assert "NaN and Infinity (1) are not JSON" in data.notes[0]


def test_columns_that_rows_lack_are_missing(tmp_path: Path) -> None:
    assert rows(put(tmp_path, "a.jsonl", '{"text": "a", "x": 1}\n{"text": "b", "y": "c"}\n')) == [
        {"text": "a", "x": 1, "y": None}, {"text": "b", "x": None, "y": "c"}]


def test_columns_named_as_those_of_an_agent_s_trace_are_columns(tmp_path: Path) -> None:
    row = {"id": "1", "source": "web", "model": "m", "system_prompt": "be kind", "messages": [{"role": "user", "content": "hi"}]}
    assert rows(put(tmp_path, "a.jsonl", json.dumps(row) + "\n")) == [row]
