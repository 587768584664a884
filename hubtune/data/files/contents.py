"""Contents of a file by its first bytes, for a file whose name says something else."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

RENAME = "Give it its own suffix: mv {name} {stem}{suffix}"
SAVE = "Open it in its program, and save it as CSV UTF-8 (.csv) or as .xlsx."
EXPORT = "Write its rows to a .parquet or .jsonl file with the program that made it, and give that."
SIGNATURES: Sequence[tuple[bytes, str, str]] = (
    (b"PAR1", "a parquet file", RENAME.replace("{suffix}", ".parquet")),
    (b"\x1f\x8b", "a gzip file", RENAME.replace("{suffix}", "{own}.gz")),
    (b"BZh", "a bzip2 file", RENAME.replace("{suffix}", "{own}.bz2")),
    (b"\xfd7zXZ\0", "an xz file", RENAME.replace("{suffix}", "{own}.xz")),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "Unpack it: zstd -d {name}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it, and give the table in it."),
    (b"Rar!", "a RAR archive", "Unpack it, and give the table in it."),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook or document of an old Office (.xls, .doc)", SAVE),
    (b"%PDF-", "a PDF document", "Take the table out of it, and save it as CSV UTF-8."),
    (b"{\\rtf", "an RTF document", "Save it as plain text (UTF-8)."),
    (b"SQLite format 3\0", "an SQLite database",
     "Export the rows: sqlite3 -csv -header {name} 'SELECT * FROM TABLE' > rows.csv"),
    (b"ARROW1", "an Arrow file (.arrow, .feather)", EXPORT),
    (b"\x89HDF", "an HDF5 file", EXPORT),
    (b"\x93NUMPY", "a NumPy array", EXPORT),
    (b"\x89PNG", "a PNG image", "Give the folder that holds the images."),
    (b"\xff\xd8\xff", "a JPEG image", "Give the folder that holds the images."),
    (b"\x7fELF", "a program", "Give the file that holds the rows."),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, which stands in for the file",
     "Fetch the file itself: git lfs pull"),
)
"""First bytes, what the file is, and what to do."""
BINARY_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
MARKUP = ((b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<?xml", "an XML file"))


def describe(path: Path, head: bytes) -> tuple[str, str] | None:
    """Return what the first bytes of a text file say it is instead, and what to do; None for text.

    Args:
        path: the file, whose name gives a suffix to the advice.
        head: its first bytes, at least a hundred where it has as many.
    """
    found = next(((what, advice) for start, what, advice in SIGNATURES if head.startswith(start)),
                 None)
    if head.startswith(b"PK\x03\x04"):
        is_book = b"xl/" in head or b"[Content_Types].xml" in head or b"docProps/" in head
        what = "an Excel workbook or another Office document" if is_book else "a zip archive"
        found = what, RENAME.replace("{suffix}", ".xlsx" if is_book else ".zip")
    if head.startswith(BINARY_PICKLES):
        found = "a Python pickle", (
            "Loading a pickle can run code, so it is not read. Write its rows with: "
            "pandas.read_pickle(FILE).to_parquet('rows.parquet')")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for word, what in MARKUP:
        if start.startswith(word):
            found = what, ("Fetch the file itself: a page instead of it often is a log-in or an "
                           "error of the site it came from.")
    if found is None:
        return None
    names = {"name": shlex.quote(path.name), "stem": shlex.quote(path.stem), "own": path.suffix}
    return found[0], found[1].format(**names)
