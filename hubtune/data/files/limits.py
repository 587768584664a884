"""Bounds of what is read from a file, each with its reason. Beyond one, the file is refused."""

MAX_ROW = 32 * 2**20
"""Characters of a row or a line. A tokenizer takes minutes for one this long, and no model reads so
much; a longer one is a file without line ends, or a document in a cell."""

MAX_COLUMNS = 10_000
"""Columns of a table, with the keys of objects inside of rows. Each is an Arrow array of its own, so
that 100,000 take minutes; a table this wide is transposed, or has data where its keys should be."""

MAX_DEPTH = 32
"""Lists and objects inside of each other in a JSON row. Arrow's reader calls itself once per level,
its schemas hold 64, and at some thousands it crashes; no task looks deeper than ten."""

MAX_UNPACKED = 2**30
"""Bytes of a compressed file that are unpacked whatever their number."""

MAX_RATIO = 200
"""Beyond `MAX_UNPACKED`, how many bytes one compressed byte may become. Text becomes 3 to 30; only
files made to fill a disk become more than 200."""
