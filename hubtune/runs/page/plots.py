"""Curves and bars as SVG for a page, by matplotlib: text stays text, and colours are variables of the page's style."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

Points = Sequence[Sequence[float]]
WIDTH, HEIGHT = 4.2, 2.5
"""Size of a plot in units of 100 pixels of the page: as wide as a telephone, where it is not scaled."""
SERIES = 4
"""Colours of series; more series repeat them with another dash."""
LETTER = 0.0165
"""Width of a letter, as a part of the width of a plot."""
ALONE = "model"
"""Name of a series that needs no legend, as it is the only one there could be."""
DASHES = ("-", "--", ":", "-.")
COLOURS = {"#010100": "var(--ink)", "#010200": "var(--grid)",
           **{f"#0103{number:02x}": f"var(--series-{number + 1})" for number in range(SERIES)}}
"""Colours of the drawing, and what they become: a colour that changes with the page from light to dark."""
INK, GRID = "#010100", "#010200"
RC = {"svg.fonttype": "none", "svg.hashsalt": "hubtune", "text.parse_math": False, "text.usetex": False,
      "font.family": "DejaVu Sans", "font.size": 9.0, "axes.edgecolor": GRID, "axes.labelcolor": INK,
      "xtick.color": INK, "ytick.color": INK, "text.color": INK, "grid.color": GRID, "grid.linewidth": 0.6,
      "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "axes.titlesize": 9.0,
      "axes.formatter.useoffset": False, "path.simplify": True, "figure.dpi": 100}


@dataclass(frozen=True)
class Plot:
    """Curves to draw. lines: points (x, y) by name. marked: an x with a name, such as the best step."""

    x: str
    y: str
    lines: Mapping[str, Points]
    marked: tuple[float, str] | None = None
    diagonal: bool = False


def is_available() -> bool:
    """Tell if matplotlib is installed, without importing it."""
    return find_spec("matplotlib") is not None


def warm_up() -> None:
    """Import matplotlib early, while the process would only wait for another."""
    if is_available():
        import matplotlib.backends.backend_svg
        import matplotlib.figure  # noqa: F401


@contextmanager
def drawing(width: float, height: float, rows: int = 1, left: float = 0.2) -> Iterator[tuple[Any, list[Any], list[str]]]:
    """Yield a figure, its axes from top to bottom, and a list that gets the SVG when the figure is drawn.

    Margins are fixed: to fit them to the texts, matplotlib would draw everything twice. left: the margin for names, as a
    part of the width.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn: list[str] = []
    with warnings.catch_warnings(), matplotlib.rc_context(RC):
        warnings.simplefilter("ignore")  # of letters that its font lacks, and the page's fonts have
        figure = Figure(figsize=(width, height))
        figure.subplots_adjust(left=left, right=0.985, top=1 - 0.1 / height, bottom=0.42 / height, hspace=0.22)
        axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0].tolist()
        yield figure, axes, drawn
        figure.patch.set_visible(False)
        for axis in axes:
            axis.patch.set_visible(False)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file)
        drawn.append(file.getvalue())


def curves(name: str, title: str, description: str, plots: Sequence[Plot]) -> str:
    """Draw curves above each other over one x axis; an empty string without matplotlib.

    name: of the drawing, unique on the page. title, description: for screen readers.
    """
    if not is_available():
        return ""
    with drawing(WIDTH, HEIGHT if len(plots) == 1 else 1.35 * len(plots), len(plots)) as (_, axes, drawn):
        for axis, plot in zip(axes, plots, strict=True):
            draw(axis, plot)
        axes[-1].set_xlabel(plots[-1].x)
    return embedded(drawn[0], name, title, description)


def draw(axis: Any, plot: Plot) -> None:
    """Draw the curves of a plot on an axis."""
    axis.grid(axis="y")
    if plot.diagonal:
        axis.plot([0, 1], [0, 1], color=GRID, linewidth=1, linestyle="--")
    for number, (name, points) in enumerate(plot.lines.items()):
        axis.plot([x for x, _ in points], [y for _, y in points], color=f"#0103{number % SERIES:02x}",
                  linestyle=DASHES[number % len(DASHES)], linewidth=1.5, label=f"\u200b{name}",
                  marker="o" if len(points) <= 30 else None, markersize=3)
    if plot.marked is not None:
        place, label = plot.marked
        axis.axvline(place, color=INK, linewidth=0.8, linestyle=":")
        low, high = axis.get_xlim()
        is_left = place < low + 0.8 * (high - low)  # else its name would leave the drawing
        axis.annotate(label, (place, 1.0), xycoords=("data", "axes fraction"), xytext=(3 if is_left else -3, -2),
                      textcoords="offset points", va="top", ha="left" if is_left else "right", fontsize=8)
    axis.set_ylabel(plot.y)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # a common factor would stand outside of the drawing
    if len(plot.lines) > 1:
        axis.legend(fontsize=8, loc="best")


def bars(name: str, title: str, description: str, unit: str, series: Mapping[str, Mapping[str, float]]) -> str:
    """Draw horizontal bars by category, those of several series beside each other; an empty string without matplotlib."""
    if not is_available():
        return ""
    names = list(dict.fromkeys(category for values in series.values() for category in values))
    thick = 0.8 / max(1, len(series))
    left = 0.05 + LETTER * max((len(short(category)) for category in names), default=0)
    with drawing(WIDTH, max(1.4, 0.6 + 0.24 * len(names) * max(1.0, 0.7 * len(series))), left=left) as (_, (axis,), drawn):
        for number, (label, values) in enumerate(series.items()):
            places = [index + (number - (len(series) - 1) / 2) * thick for index in range(len(names))]
            axis.barh(places, [values.get(category, 0) for category in names], height=thick,
                      color=f"#0103{number % SERIES:02x}", label=f"\u200b{label}")
        axis.set_yticks(range(len(names)), [short(category) for category in names])
        axis.invert_yaxis()
        axis.set_xlabel(unit)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        if list(series) != [ALONE]:
            axis.legend(fontsize=8, loc="best")
    return embedded(drawn[0], name, title, description)


def intervals(name: str, title: str, description: str, x: str, values: Mapping[str, tuple[float, Sequence[float] | None]]) -> str:
    """Draw differences with their intervals beside 0; an empty string without matplotlib.

    values: the difference and its interval, by the name of a line.
    """
    if not is_available():
        return ""
    left = 0.05 + LETTER * max(len(short(line)) for line in values)
    with drawing(WIDTH, 0.7 + 0.26 * len(values), left=left) as (_, (axis,), drawn):
        axis.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        for place, (value, bounds) in enumerate(values.values()):
            if bounds is not None:
                axis.plot(list(bounds), [place, place], color="#010300", linewidth=1.5)
            axis.plot([value], [place], color="#010300", marker="o", markersize=4)
        axis.set_yticks(range(len(values)), [short(line) for line in values])
        axis.set_ylim(len(values) - 0.5, -0.5)
        axis.set_xlabel(x)
        axis.grid(axis="x")
    return embedded(drawn[0], name, title, description)


def histogram(name: str, title: str, description: str, x: str, edges: Sequence[float], counts: Sequence[float]) -> str:
    """Draw counts between edges; an empty string without matplotlib."""
    if not is_available():
        return ""
    with drawing(WIDTH, 2.0) as (_, (axis,), drawn):
        axis.stairs(counts, edges, fill=True, color="#010300")
        axis.set_xlabel(x)
        axis.set_ylabel("rows")
        axis.grid(axis="y")
        axis.set_axisbelow(True)
    return embedded(drawn[0], name, title, description)


def short(text: str, most: int = 26) -> str:
    """Return the beginning of a name on an axis, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most - 1]}…"


def embedded(svg: str, name: str, title: str, description: str) -> str:
    """Return a drawing as a part of a page: no prologue and metadata, ids of its own, colours and fonts of the page."""
    from markupsafe import escape

    body = svg[svg.index("<svg"):]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    opening, _, rest = body.partition(">")
    box = re.search(r'viewBox="[^"]*"', opening)
    ids = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', rest))
    rest = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in ids else "", rest)
    rest = re.sub(r'(url\(#|href="#)', rf"\1{name}-", rest)
    for colour, variable in COLOURS.items():
        rest = rest.replace(colour, variable)
    rest = rest.replace("'DejaVu Sans'", "system-ui, sans-serif").replace("xlink:href", "href").replace("\u200b", "")
    return (f'<svg class="plot" role="img" aria-labelledby="{name}-title {name}-text" {box[0] if box else ""}>'
            f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>{rest}')
