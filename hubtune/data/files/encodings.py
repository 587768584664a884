"""Encodings of text: told by a byte order mark, tried on a whole file, or guessed."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hubtune.data.files.limits import MAX_ROW

BLOCK = 1 << 20
SAMPLE = 1 << 16
"""Bytes of lines outside of ASCII that an encoding is guessed from."""
BOMS: Sequence[tuple[bytes, str]] = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks; that of UTF-32 begins with that of UTF-16."""
COMMON = (
    "cp1252", "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1255", "cp1251", "koi8_r", "cp1250",
    "cp1253", "cp1254", "cp1256", "cp1257", "cp1258", "iso8859_2", "cp874", "mac_roman", "cp437",
    "cp850", "cp852", "cp866",
)
"""Encodings that are guessed, the commonest first: it wins where several read nearly as well."""
NAMES = {
    "cp1252": "Windows-1252, Western Europe", "cp1250": "Windows-1250, Central Europe",
    "cp1251": "Windows-1251, Cyrillic", "cp932": "Shift-JIS, Japanese", "cp949": "EUC-KR, Korean",
    "gb18030": "GB 18030, Chinese", "big5": "Big5, Chinese", "iso2022_jp": "ISO-2022-JP, Japanese",
}
WINDOWS_SIGNS = re.compile(r"([\0-\x7f€£§°®™«»…\u2013\u2014\u2019]|(?<![a-zA-Z])“|”(?![a-zA-Z]))*")
"""Text whose only characters outside of ASCII are signs of Windows-1252."""
CONTROLS = re.compile("[\x80-\x9f]")
"""Control characters that ISO 8859 has where Windows code pages have quotes, dashes and the euro."""


class Undecodable(Exception):
    """Bytes that are not of an encoding. line: where they are, from 1. shown: these bytes."""

    def __init__(self, line: int, shown: bytes) -> None:
        super().__init__(line, shown)
        self.line, self.shown = line, shown


@dataclass(frozen=True)
class Checked:
    """Lines of a file that was decoded as a whole, each the first of its kind, from 1.

    Attributes:
        nul: with a NUL character.
        control: with a control character of ISO 8859 (U+0080 to U+009F).
        escape: with the escape sequence of ISO-2022, which is ASCII to other encodings.
        too_long: with more than `MAX_ROW` characters.
        wide: with a character outside of ASCII.
        characters: number of those.
    """

    nul: int | None = None
    control: int | None = None
    escape: int | None = None
    too_long: int | None = None
    wide: int | None = None
    characters: int = 0


def bom_of(head: bytes) -> tuple[str | None, int]:
    """Return the codec that a byte order mark names and the bytes of the mark; (None, 0) without."""
    return next(((codec, len(mark)) for mark, codec in BOMS if head.startswith(mark)), (None, 0))


def check(path: Path, codec: str, skip: int = 0, errors: str = "strict") -> Checked:
    """Decode a whole file in blocks.

    Args:
        skip: bytes at its start, of a byte order mark.
        errors: what is done with bytes that are not of the encoding.

    Raises:
        Undecodable: with the first line that is not of the encoding.
    """
    decoder = codecs.getincrementaldecoder(codec)(errors)
    found: dict[str, int] = {}
    line, carried, characters = 1, 0, 0

    def note(kind: str, place: int) -> None:
        if place >= 0 and kind not in found:
            found[kind] = line + text.count("\n", 0, place)

    with path.open("rb") as file:
        file.seek(skip)
        while True:
            block = file.read(BLOCK)
            try:
                text = decoder.decode(block, not block)
            except UnicodeDecodeError as error:
                before = error.object[:error.start].decode(codec, "ignore")
                raise Undecodable(line + before.count("\n"),
                                  error.object[error.start:error.end][:4]) from None
            note("nul", text.find("\0"))
            note("escape", text.find("\x1b$"))
            if not text.isascii():
                outside = re.search(r"[^\0-\x7f]", text)
                note("wide", outside.start() if outside else -1)
                control = CONTROLS.search(text)
                note("control", control.start() if control else -1)
                characters += len(text) - len(text.encode("ascii", "ignore"))
            end = "\n" if "\n" in text else "\r"
            first = text.find(end)
            if carried + (len(text) if first < 0 else first) > MAX_ROW:
                found.setdefault("too_long", line)
            carried = carried + len(text) if first < 0 else len(text) - text.rfind(end) - 1
            line += text.count("\n")
            if not block:
                return Checked(**found, characters=characters)


def guess(path: Path) -> str | None:
    """Guess the encoding of a file that is not UTF-8; None where nothing reads as text."""
    from charset_normalizer import from_bytes

    sample = lines_outside_ascii(path)
    if WINDOWS_SIGNS.fullmatch(sample.decode("cp1252", "replace")):
        return "cp1252"  # letters alone tell code pages apart, and there are none
    matches: list[tuple[str, float, float]] = [
        (name, match.chaos, match.coherence)
        for match in from_bytes(sample, cp_isolation=list(COMMON))
        for name in match.could_be_from_charset if name in COMMON]
    if not matches:
        return None
    chaos = min(match[1] for match in matches) + 0.02
    coherence = max(match[2] for match in matches if match[1] <= chaos) - 0.04
    near = [name for name, one, other in matches if one <= chaos and other >= coherence]
    for name in sorted(near or [matches[0][0]], key=COMMON.index):
        if name == "cp1252" and "¤" in sample.decode(name, "replace"):
            name = "iso8859_15"  # which has the euro there; hardly a text has the sign for any currency
        try:
            check(path, name)
        except Undecodable:
            continue
        return name
    return None


def lines_outside_ascii(path: Path) -> bytes:
    """Return the first lines of a file that hold other bytes than ASCII."""
    found = bytearray()
    with path.open("rb") as file:
        while len(found) < SAMPLE and (line := file.readline(SAMPLE)):
            if not line.isascii():
                found += line
    return bytes(found)


def is_mostly_utf8(path: Path) -> bool:
    """Tell whether most characters outside of ASCII are right as UTF-8."""
    text = lines_outside_ascii(path).decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return sum(not character.isascii() for character in text) - wrong > wrong


def lines_beside_utf8(path: Path) -> list[int]:
    """Return the lines, from 1, that are not UTF-8."""
    found = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                found.append(number)
    return found


def read_stray_byte(error: UnicodeError) -> tuple[str, int]:
    """Read a single byte that is not UTF-8 as Windows-1252, as where texts were pasted together.

    Parts of a character of UTF-8 that was cut are no such byte, and stay an error.
    """
    if not isinstance(error, UnicodeDecodeError) or error.end - error.start > 1:
        raise error
    around = error.object[max(0, error.start - 1):error.start + 2]
    if len([byte for byte in around if 0x80 <= byte < 0xc0]) > 1:
        raise error
    return error.object[error.start:error.end].decode("cp1252"), error.end


STRAY = "hubtune-stray-byte"
codecs.register_error(STRAY, read_stray_byte)


def guess_wide(head: bytes) -> str | None:
    """Tell UTF-16 and UTF-32 without a byte order mark by the first bytes of a file."""
    head = head[:len(head) // 4 * 4]
    for codec in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        try:
            text = codecs.getincrementaldecoder(codec)("strict").decode(head)
        except UnicodeDecodeError:
            continue
        odd = sum(unicodedata.category(sign) in ("Cn", "Co", "Cs", "Cc") and sign not in "\r\n\t"
                  for sign in text)
        if "\n" in text and odd <= len(text) / 100:
            return codec
    return None


def family(codec: str) -> str:
    """Return `utf-8`, `utf-16`, `utf-32` or the codec itself, of Python's name for a codec."""
    name = codecs.lookup(codec).name
    return next((wide for wide in ("utf-8", "utf-16", "utf-32") if name.startswith(wide)), name)


def title(codec: str) -> str:
    """Return the name of an encoding for a message: `cp1252 (Windows-1252, Western Europe)`."""
    return f"{codec} ({NAMES[codec]})" if codec in NAMES else codec


def is_single_byte(codec: str) -> bool:
    """Tell whether each byte is a character, by the name of a codec."""
    return not codec.startswith(("gb", "big5", "cp93", "cp94", "cp95", "shift", "euc", "iso2022",
                                 "johab", "hz"))
