"""Text files: open them as text, in the encoding that is set, told by the file or guessed.

What is found out about a file holds for one `sources.load`, within `reading`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import shlex
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from hubtune.data.files import contents, encodings
from hubtune.data.files.limits import MAX_ROW
from hubtune.data.files.lines import RowLines
from hubtune.errors import DataError, listing

HEAD = 4096
"""Bytes that are looked at to tell what a file is."""
EXCERPT = 40
"""Characters that are shown of a line, on either side of the first one outside of ASCII."""


@dataclass(frozen=True)
class TextFile:
    """Decoding of a file. skip: bytes of its byte order mark. errors: as `open` takes it."""

    codec: str
    skip: int
    checked: encodings.Checked
    note: str | None = None
    errors: str = "strict"


@dataclass
class Reading:
    """Files of one load: their encodings, lines and copies.

    Attributes:
        encoding: of all text files, as the user set it.
        notes: what the user should know, such as a guessed encoding.
        texts: how each file is decoded.
        copies: the unpacked copy of each compressed file.
        lines: of the rows of some files that were read together.
    """

    encoding: str | None = None
    notes: list[str] = field(default_factory=list)
    texts: dict[Path, TextFile] = field(default_factory=dict)
    copies: dict[Path, Path] = field(default_factory=dict)
    lines: dict[tuple[Path, ...], RowLines] = field(default_factory=dict)


CURRENT: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextlib.contextmanager
def reading(encoding: str | None = None) -> Iterator[Reading]:
    """Read files within: each is looked at once, and notes on them are kept."""
    made = Reading(encoding)
    token = CURRENT.set(made)
    try:
        yield made
    finally:
        CURRENT.reset(token)


def current() -> Reading:
    """Return the load that runs, or a new one outside of any."""
    return CURRENT.get() or Reading()


def original(path: Path) -> Path:
    """Return the compressed file that a path is the copy of; else the path itself."""
    return next((packed for packed, copy in current().copies.items() if copy == path), path)


def open_text(path: Path, lines: bool = True) -> io.TextIOWrapper:
    """Open a file as text, with line ends as they are and without a byte order mark.

    Args:
        lines: its rows are lines, so that a line beyond `MAX_ROW` is refused.

    Raises:
        DataError: it is not text, or not of the encoding that is set.
    """
    found = text_file(path)
    if lines and found.checked.too_long:
        raise DataError(
            f"line {found.checked.too_long} has more than {MAX_ROW:,} characters.", where=path.name,
            hint="A row is held in memory as a whole. Shorten it, or split it into several rows.")
    file = path.open("rb")
    file.seek(found.skip)
    return io.TextIOWrapper(file, encoding=found.codec, errors=found.errors, newline="")


def text_file(path: Path) -> TextFile:
    """Return how a file is decoded. Raises DataError for one that is not text."""
    held = current()
    if path not in held.texts:
        found = decide(path, held.encoding)
        held.texts[path] = found
        if found.note:
            held.notes.append(found.note)
    return held.texts[path]


def decide(path: Path, wanted: str | None) -> TextFile:
    """Decide how a file is decoded. wanted: the encoding that is set."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if other := contents.describe(path, head):
        raise DataError(f"it looks like {other[0]}, not like a {path.suffix} file.",
                        where=path.name, hint=other[1])
    codec, skip = encodings.bom_of(head)
    if wanted:
        return as_set(path, head, wanted, codec, skip)
    try:
        checked = encodings.check(path, codec or "utf-8", skip)
    except encodings.Undecodable as bad:
        if codec == "utf-8" or encodings.is_mostly_utf8(path):
            return mixed(path, skip, bad)
        if codec:
            raise DataError(
                f"line {bad.line} is not {codec}, which its byte order mark names: "
                f"{show_bytes(bad.shown)}.", where=path.name,
                hint="Write the file again, or name its encoding: --set data.encoding=NAME",
            ) from None
        return guessed(path, head, bad)
    if checked.nul and codec is None and (wide := encodings.guess_wide(head)):
        return with_note(path, wide, 1)
    if checked.escape and codec is None:
        with contextlib.suppress(DataError):
            return with_note(path, "iso2022_jp", checked.escape)
    refuse_nul(path, checked.nul)
    return TextFile(codec or "utf-8", skip, checked)


def guessed(path: Path, head: bytes, bad: encodings.Undecodable) -> TextFile:
    """Guess the encoding of a file that is not UTF-8, and say so."""
    if b"\0" in head:
        wide = encodings.guess_wide(head)
        if wide is None:
            refuse_nul(path, head[:head.index(b"\0")].count(b"\n") + 1)
        else:
            return with_note(path, wide, 1)
    name = encodings.guess(path)
    if name is None:
        raise DataError(
            f"line {bad.line} is not UTF-8 ({show_bytes(bad.shown)}), and no other encoding that "
            "is tried reads as text.", where=path.name,
            hint="Name the encoding: --set data.encoding=NAME\nOr save the file as UTF-8.")
    return with_note(path, name, bad.line)


def mixed(path: Path, skip: int, bad: encodings.Undecodable) -> TextFile:
    """Read a file that is UTF-8 but for some bytes, which are guessed where they can be."""
    lines = encodings.lines_beside_utf8(path)
    try:
        checked = encodings.check(path, "utf-8", skip, encodings.STRAY)
    except encodings.Undecodable as cut:
        raise DataError(
            f"line {cut.line} is not UTF-8 ({show_bytes(cut.shown)}), but most of the file is: a "
            "character was cut, or files of several encodings were joined.", where=path.name,
            hint=f"Mend it there, and in all such lines: {listing(lines)}") from None
    refuse_nul(path, checked.nul)
    shown = excerpt(path, "utf-8", bad.line, skip, encodings.STRAY)
    return TextFile("utf-8", skip, checked, (
        f"{path.name} is UTF-8, but for {len(lines)} lines ({listing(lines)}). Their other bytes are "
        f"read as {encodings.title('cp1252')}, a guess; line {bad.line} then says: {shown!r}. If "
        "that is wrong, mend these lines."), encodings.STRAY)


def with_note(path: Path, codec: str, line: int) -> TextFile:
    """Return a file with a guessed encoding, and the line that shows the guess."""
    try:
        checked = encodings.check(path, codec)
    except encodings.Undecodable as bad:
        raise DataError(
            f"it seems to be {codec}, but line {bad.line} is not ({show_bytes(bad.shown)}): the file "
            "was cut or damaged.", where=path.name,
            hint="Write it again, or name its encoding: --set data.encoding=NAME") from None
    refuse_nul(path, checked.nul)
    return TextFile(codec, 0, checked, (
        f"{path.name} is not UTF-8 and names no encoding. It is read as {encodings.title(codec)}, "
        f"a guess; line {line} then says: {excerpt(path, codec, line)!r}. If that is wrong: "
        "--set data.encoding=NAME"))


def as_set(path: Path, head: bytes, wanted: str, marked: str | None, skip: int) -> TextFile:
    """Decode a file in the encoding that is set, and refuse one that it contradicts."""
    codec, wide = codecs.lookup(wanted).name, encodings.family(wanted)
    if marked:
        if encodings.family(marked) != wide:
            raise wrong_encoding(path, wanted, 1, f"it begins with the byte order mark of {marked}")
        codec = marked
    elif wide in ("utf-16", "utf-32"):
        if b"\0" not in head:
            raise wrong_encoding(path, wanted, 1, "it has no zero bytes, which line ends have there")
        codec = codec if codec != wide else encodings.guess_wide(head) or f"{wide}-le"
    codec = "utf-8" if wide == "utf-8" else codec
    try:
        checked = encodings.check(path, codec, skip)
    except encodings.Undecodable as bad:
        raise wrong_encoding(path, wanted, bad.line, show_bytes(bad.shown)) from None
    if checked.nul:
        raise wrong_encoding(path, wanted, checked.nul, "it has a NUL character there")
    if checked.control and codec.startswith(("iso8859", "latin")):
        raise wrong_encoding(path, wanted, checked.control, "it has a control character there")
    if wide not in ("utf-8", "utf-16", "utf-32") and checked.wide and not marked:
        refuse_if_utf8(path, wanted, codec)
    return TextFile(codec, skip, checked)


def refuse_if_utf8(path: Path, wanted: str, codec: str) -> None:
    """Refuse to read UTF-8 in another encoding, which turns each letter into two others."""
    try:
        checked = encodings.check(path, "utf-8")
    except encodings.Undecodable:
        return
    # Two Chinese characters may by chance be bytes of UTF-8; more hardly are.
    by_chance = 1 if encodings.is_single_byte(codec) else 4
    if checked.wide and checked.characters >= by_chance:
        raise wrong_encoding(path, wanted, checked.wide, "the file is UTF-8")


def wrong_encoding(path: Path, wanted: str, line: int, reason: str) -> DataError:
    """Return the error of a `data.encoding` that a file contradicts, with the encoding it has."""
    hint = "Leave data.encoding out to have it found out, or name another."
    with contextlib.suppress(DataError):
        found = decide(path, None)
        hint = (f"It looks like {encodings.title(found.codec)}: leave data.encoding out, or use "
                f"--set data.encoding={found.codec}")
    return DataError(f"line {line} is not {wanted}, which data.encoding says: {reason}.",
                     where=path.name, hint=hint)


def refuse_nul(path: Path, line: int | None) -> None:
    """Refuse NUL characters, which text does not have."""
    if line:
        raise DataError(
            f"line {line} has a NUL byte: the file is not text, or was cut while it was written.",
            where=path.name,
            hint="Write it again, or take them out: tr -d '\\000' "
            f"< {shlex.quote(path.name)} > clean{shlex.quote(path.suffix)}")


def excerpt(path: Path, codec: str, line: int, skip: int = 0, errors: str = "strict") -> str:
    """Return a line around its first character outside of ASCII. skip: of a byte order mark."""
    with path.open("rb") as raw:
        raw.seek(skip)
        file = io.TextIOWrapper(raw, encoding=codec, errors=errors)
        text = next((text for number, text in enumerate(file, 1) if number == line), "").strip("\r\n")
    at = next((place for place, sign in enumerate(text) if not sign.isascii()), 0)
    start, end = max(0, at - EXCERPT), at + EXCERPT
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def show_bytes(found: bytes) -> str:
    """Format bytes for a message: `byte 0x80`."""
    return f"byte{'s' if len(found) > 1 else ''} {' '.join(f'0x{value:02x}' for value in found)}"
