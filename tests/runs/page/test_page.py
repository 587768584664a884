"""The page of a run: what is in it, that no text of a user becomes a part of it, and that it needs no network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.runs.page import page, plots

EVIL = '<script>alert("x")</script><img src=http://a.example/x onerror=alert(1)> </script> &amp; $x$ {{ 7*7 }}'
ROWS = [{"text": f"{'lovely' if number % 2 else 'awful'} day {number}", "label": "good" if number % 2 else f"bad {EVIL}"}
        for number in range(24)]


@pytest.fixture(scope="module")
def run(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run whose texts and labels hold markup."""
    rows = [{**row, "text": f"{row['text']} {EVIL}"} for row in ROWS]
    return hubtune.train("text-classification", model=tiny_model("bert"), data=rows, strategy="head",
                         out=tmp_path_factory.mktemp("page") / "run", set={"train.epochs": 2, "train.verify": False})


class Elements(HTMLParser):
    """All tags of a page with their attributes, and the figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts.append(data)


def elements(path: Path) -> Elements:
    return Elements(path.read_text(encoding="utf-8"))


def figures(path: Path) -> Any:
    (script,) = elements(path).scripts
    return json.loads(script)


def test_no_text_of_a_user_becomes_markup(run: Any) -> None:
    text = run.report.read_text(encoding="utf-8")
    found = Elements(text)
    assert [attributes for tag, attributes in found.tags if tag == "script"] == [
        {"type": "application/json", "id": "figures"}]
    assert not [attributes for _, attributes in found.tags if any(name.startswith("on") for name in attributes)]
    assert "<img src=http" not in text
    assert "&lt;script&gt;alert(" in text
    assert "{{ 7*7 }}" in text  # of the texts: they are no templates
    shown = [row for panel in figures(run.report)["panels"] if panel["kind"] == "rows" for row in panel["rows"]]
    assert any(EVIL in row["texts"]["text"] for row in shown)


def test_a_page_names_no_address_of_the_network(run: Any) -> None:
    found = elements(run.report)
    addresses = [value for _, attributes in found.tags for name, value in attributes.items()
                 if name in ("src", "href", "xlink:href", "srcset", "action", "poster")]
    assert [address for address in addresses if not (address or "").startswith(("#", "data:"))] == []
    assert "@import" not in run.report.read_text(encoding="utf-8")
    policy = [attributes["content"] for tag, attributes in found.tags
              if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1
    assert "default-src 'none'" in (policy[0] or "")


def test_the_figures_in_the_page_are_those_of_the_run(run: Any) -> None:
    found, record = figures(run.report), json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    metric = record["task"]["metric"]
    assert found["metrics"] == record["metrics"]
    assert found["intervals"] == record["intervals"]
    assert found["headline"]["value"] == record["metrics"]["validation"][metric]
    assert found["headline"]["baseline"] == record["baselines"]["validation"][metric]
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in log if "split" not in line]
    assert found["curves"]["loss"]["training loss"] == [[line["step"], line["loss"]] for line in steps]
    assert found["curves"]["best_step"] == record["best_step"]
    (matrix,) = (panel for panel in found["panels"] if panel["kind"] == "matrix")
    right = sum(count for one, other, count in matrix["cells"] if one == other)
    total = sum(count for *_, count in matrix["cells"])
    assert total == record["data"]["rows"]["validation"]
    assert right / total == record["metrics"]["validation"]["accuracy"]


def test_every_picture_has_a_text(run: Any) -> None:
    pytest.importorskip("matplotlib")
    found = elements(run.report)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = [attributes for tag, attributes in found.tags if tag == "svg"]
    assert len(pictures) >= 4
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
    text = run.report.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) <= set(ids)


def test_rows_can_be_left_out_when_training(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    secret = [{**row, "text": f"{row['text']} sesame"} for row in ROWS]
    made = hubtune.train("text-classification", model=tiny_model("bert"), data=secret, strategy="head",
                         out=tmp_path / "run", set={"train.epochs": 1, "train.verify": False, "report.rows": False})
    assert "sesame" not in made.report.read_text(encoding="utf-8")
    assert "sesame" not in (made.folder / "report.json").read_text(encoding="utf-8")
    assert [panel["kind"] for panel in figures(made.report)["panels"]] == ["matrix", "lines"]


def test_rows_can_be_left_out_when_writing_anew(run: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    assert "lovely" in (folder / "report.html").read_text(encoding="utf-8")
    assert hubtune.write_report(folder, rows=False) == folder / "report.html"
    assert "lovely" not in (folder / "report.html").read_text(encoding="utf-8")


def test_nothing_of_the_page_is_published(run: Any) -> None:
    from hubtune.runs import publishing, seal

    files = seal.check(run.folder, publishing.read_raw(run.folder)).hashes
    assert [name for name in files if "report" in name] == []
    assert "day 7" not in (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "report" not in json.loads((run.folder / "model" / "hubtune.json").read_text(encoding="utf-8"))["recipe"]


def test_without_matplotlib_the_figures_are_tables_and_the_page_says_what_is_missing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    monkeypatch.setattr(plots, "is_available", lambda: False)
    text = hubtune.write_report(folder).read_text(encoding="utf-8")
    assert "<svg" not in text
    assert "pip install &#39;hubtune[report]&#39;" in text
    assert "training loss" in text


def test_a_run_of_an_earlier_version_has_a_page(tmp_path: Path) -> None:
    old = Path(__file__).resolve().parents[1] / "version_0_1" / "full"
    folder = shutil.copytree(old, tmp_path / "run")
    found = figures(hubtune.write_report(folder))
    assert found["panels"] == []
    assert found["headline"]["value"] is not None


def test_a_page_that_fails_leaves_the_run_finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("no room")

    said: list[str] = []
    callbacks = hubtune.Callbacks()
    callbacks.on_warning = said.append  # type: ignore[method-assign]
    monkeypatch.setattr(page, "write", fail)
    page.write_if_possible(tmp_path, {}, callbacks)
    assert said == [f"the page of the run was not written: RuntimeError: no room. Try again with: hubtune report {tmp_path}"]


def test_an_unfinished_run_has_no_page(tmp_path: Path) -> None:
    old = Path(__file__).resolve().parents[1] / "version_0_1" / "stopped"
    folder = shutil.copytree(old, tmp_path / "run")
    with pytest.raises(hubtune.HubtuneError, match="was not finished"):
        hubtune.write_report(folder)


def test_letters_and_signs_that_the_font_lacks_are_drawn_without_a_word() -> None:
    pytest.importorskip("matplotlib")
    drawn = plots.bars("a", "<b>", "&", "rows", {"數": {"情感 $\\frac": 2.0, "<i>": 1.0}})
    assert "情感 $\\frac" in drawn
    assert "&lt;i&gt;" in drawn
    assert "<title id=\"a-title\">&lt;b&gt;</title>" in drawn
    assert "http" not in drawn


def test_a_run_shows_itself_in_a_notebook(run: Any) -> None:
    html = run._repr_html_()
    found = Elements(html)
    assert {tag for tag, _ in found.tags} == {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "a", "code"}
    assert [attributes["href"] for tag, attributes in found.tags if tag == "a"] == [(run.folder / "report.html").as_posix()]
    assert f"{run.metrics['accuracy']:.4f}" in html
    assert repr(run) == f"Run({str(run.folder)!r})"


def test_a_task_whose_panels_fail_costs_a_warning_and_not_the_run(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hubtune_plugins.classification.labelled import Labelled

    def fail(*arguments: Any) -> Any:
        raise IndexError("row 9")

    said: list[str] = []
    callbacks = hubtune.Callbacks()
    callbacks.on_warning = said.append  # type: ignore[method-assign]
    monkeypatch.setattr(Labelled, "panels", fail)
    made = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, strategy="head", out=tmp_path / "run",
                         set={"train.epochs": 1, "train.verify": False}, callbacks=callbacks)
    assert [text for text in said if "panels" in text] == [
        "the page of the run lacks the panels of 'text-classification', whose `panels` failed: IndexError: row 9"]
    assert figures(made.report)["panels"] == []
    assert made.record["state"] == "trained"


def test_bars_of_one_series_are_named_unless_they_are_the_model_s() -> None:
    pytest.importorskip("matplotlib")
    assert "missed" in plots.bars("a", "Spans", "", "spans", {"missed": {"person": 3.0}})
    assert "model" not in plots.bars("a", "Rates", "", "rate", {"model": {"short": 0.5}})
