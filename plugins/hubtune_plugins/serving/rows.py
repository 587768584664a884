"""From the body of a request to rows that can be predicted: all that a client may get wrong is told here."""

from __future__ import annotations

import email.parser
import email.policy
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from hubtune import Column, Row, Task
from hubtune_plugins.serving import media
from hubtune_plugins.serving.limits import Limits, Refusal

DEPTH = 32
"""Lists and objects within each other in a value."""


class RowReader:
    """Reads the rows of a request for a task.

    names: the column of the training data that had a role, by that column's name.
    """

    def __init__(self, task: Task[Any], names: Mapping[str, str], limits: Limits) -> None:
        self.task, self.limits = task, limits
        self.columns = {column.role: column for column in task.columns if not column.target}
        self.targets = {column.role for column in task.columns if column.target}
        self.roles = {name: role for role, name in names.items()
                      if isinstance(name, str)} | {column.role: column.role for column in task.columns}
        self.needed = [column.role for column in self.columns.values() if column.needed == "always"]
        self.input = task.input or (self.needed[0] if len(self.needed) == 1 else None)

    @property
    def example(self) -> dict[str, Any]:
        """A row as a client sends it."""
        shown = {"words": ["What", "a", "lovely", "day"], "texts": ["yes", "no"], "image": {"base64": "..."},
                 "audio": {"base64": "..."}}
        roles = self.needed or [self.input or next(iter(self.columns))]
        return {role: shown.get(self.columns[role].kind, "What a lovely day") for role in roles}

    def read(self, body: bytes, content_type: str) -> list[Row]:
        """Return the rows of a body.

        Raises:
            Refusal: 400, it is no JSON; 415, it is of another kind; 413, it is too large; 422, a row is wrong.
        """
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/json":
            found = rows_in(parse(body))
        elif kind == "multipart/form-data":
            found = [self.form(body, content_type)]
        elif kind.startswith(("image/", "audio/")):
            found = [{self.media_role(kind.partition("/")[0]): body}]
        else:
            raise Refusal(415, f"the body is '{kind or 'of no kind'}', not JSON.",
                          "Send the header Content-Type: application/json")
        if not found:
            raise Refusal(422, "there are no rows.", f"Send for example: {json.dumps([self.example])}")
        if len(found) > self.limits.rows:
            raise Refusal(413, f"{len(found):,} rows; {self.limits.rows} are taken at a time.",
                          "Send them in several requests.")
        room = self.limits.pixels
        rows: list[Row] = []
        for number, row in enumerate(found):
            try:
                made, used = self.row(row, room)
            except Refusal as error:
                raise Refusal(error.status, f"row {number}: {error.message}", error.hint) from None
            rows.append(made)
            room -= used
        return rows

    def row(self, given: Any, room: int) -> tuple[dict[str, Any], int]:
        """Return one row under the task's roles, and the pixels of its images. room: pixels that are left of the request."""
        if isinstance(given, str) and self.input:
            given = {self.input: given}
        if not isinstance(given, dict):
            raise Refusal(422, f"it is {type(given).__name__}, not an object.", f"For example: {json.dumps(self.example)}")
        row: dict[str, Any] = {}
        used = 0
        for name, value in given.items():
            role = self.roles.get(name)
            if role is None:
                raise Refusal(422, f"the column {name[:80]!r} is not known.", f"Columns: {', '.join(self.columns)}.")
            if role in self.targets or (value is None and self.columns[role].needed != "always"):
                continue
            kind = self.columns[role].kind
            if kind in ("image", "audio"):
                data = value if isinstance(value, bytes) else media.media_bytes(value, role)
                used += media.checked(kind, data, role, self.limits, room - used)
                row[role] = {"bytes": data, "path": None}
            else:
                row[role] = checked(value, self.columns[role])
        if missing := [role for role in self.needed if role not in row]:
            raise Refusal(422, f"the column '{missing[0]}' is missing.", f"For example: {json.dumps(self.example)}")
        if not row:
            raise Refusal(422, "it is empty.", f"Columns: {', '.join(self.columns)}.")
        if (length := sum(map(characters, row.values()))) > self.limits.characters:
            raise Refusal(413, f"it has {length:,} characters; {self.limits.characters:,} are taken.", "Send a shorter text.")
        return row, used

    def media_role(self, kind: str) -> str:
        """Return the role of an image or a sound that is the whole body."""
        found = [column.role for column in self.columns.values() if column.kind == kind]
        if len(found) != 1:
            raise Refusal(415, f"'{self.task.name}' takes no {kind} alone.", f"Send JSON, such as: {json.dumps([self.example])}")
        return found[0]

    def form(self, body: bytes, content_type: str) -> dict[str, Any]:
        """Return the row of a form: files are bytes, other fields texts."""
        head = f"MIME-Version: 1.0\r\nContent-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        row: dict[str, Any] = {}
        for part in message.iter_parts() if message.is_multipart() else ():
            name = part.get_param("name", header="content-disposition")
            data = part.get_payload(decode=True)
            if not isinstance(name, str) or not isinstance(data, bytes):
                continue
            column = self.columns.get(self.roles.get(name, ""))
            if column is not None and column.kind in ("image", "audio"):
                row[name] = data
                continue
            try:
                row[name] = data.decode("utf-8")
            except UnicodeDecodeError:
                raise Refusal(422, f"the field {name[:80]!r} is no UTF-8 text.") from None
        return row


def parse(body: bytes) -> Any:
    """Parse JSON; NaN and Infinity, which JSON does not have, are refused."""
    def refuse(word: str) -> NoReturn:
        raise Refusal(400, f"{word} is not JSON.", "Send null, or a number.")

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is no UTF-8: {error.reason} at byte {error.start}.") from None
    except RecursionError:
        raise Refusal(400, "the body has too many lists within each other.") from None
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {' '.join(str(error).split())[:200]}.") from None


def rows_in(document: Any) -> list[Any]:
    """Return the rows of a document: one row, a list of rows or texts, or either under `rows`."""
    if isinstance(document, dict) and set(document) == {"rows"}:
        document = document["rows"]
        if not isinstance(document, list):
            raise Refusal(422, f"'rows' is {type(document).__name__}, not a list.")
    return document if isinstance(document, list) else [document]


def checked(value: Any, column: Column) -> Any:
    """Return the value of a column, if it is of its kind."""
    wanted = {"text": "a text", "words": "a list of words, or a text", "texts": "a list of texts"}.get(column.kind)
    is_text, is_texts = isinstance(value, str), isinstance(value, list) and all(isinstance(one, str) for one in value)
    fits = {"text": is_text, "words": is_text or is_texts, "texts": is_texts}.get(column.kind, True)
    if not fits:
        raise Refusal(422, f"'{column.role}' is {type(value).__name__}, not {wanted}.")
    if column.kind in ("text", "words", "texts") and not value:
        raise Refusal(422, f"'{column.role}' is empty.")
    return value


def characters(value: Any, depth: int = 0) -> int:
    """Count the characters of all texts of a value; refuse what is no Unicode, and what is nested too deep."""
    if depth > DEPTH:
        raise Refusal(422, f"its values are nested more than {DEPTH} deep.")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Refusal(422, "a text has half of a surrogate pair, which is no character.") from None
        return len(value)
    if isinstance(value, dict):
        return sum(characters(key, depth) + characters(one, depth + 1) for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return sum(characters(one, depth + 1) for one in value)
    return 0
