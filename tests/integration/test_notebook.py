"""The notebook in examples runs as it stands, and shows runs and their progress."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hubtune.callbacks import Callbacks, NotebookCallbacks, or_default

REPO = Path(__file__).resolve().parents[2]
NOTEBOOK = REPO / "examples" / "notebook.ipynb"


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


def test_the_notebook_was_executed_and_names_no_path_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    found = json.loads(text)
    assert all(cell["outputs"] or "train(" in "".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code")
    assert [output for output in outputs(found) if output["output_type"] == "error"] == []
    assert not any(place in text for place in ("/tmp/", "/home/", "/root/", "/work/", "site-packages"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning",
                            "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_runs(tmp_path: Path, minilm: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="executing a notebook needs: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="executing a notebook needs: pip install nbclient ipykernel")
    import nbformat

    for name in ("notebook.ipynb", "reviews.csv"):
        shutil.copy(NOTEBOOK.parent / name, tmp_path / name)
    notebook: Any = nbformat.read(tmp_path / "notebook.ipynb", as_version=4)
    for cell in notebook.cells:
        cell["outputs"] = []
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    html = ["".join(output["data"].get("text/html", "")) for output in outputs(notebook) if "data" in output]
    assert any('href="runs/notebook-full/report.html"' in text and "accuracy" in text for text in html)
    assert (tmp_path / "runs" / "notebook-full" / "report.html").is_file()


def test_a_bar_is_html_that_says_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    handle = SimpleNamespace(update=lambda html: shown.append(html.data))

    def display(html: Any, display_id: bool) -> Any:
        shown.append(html.data)
        return handle

    fake = SimpleNamespace(HTML=lambda data: SimpleNamespace(data=data), display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=fake))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr("hubtune.callbacks.UPDATE", 0.0)
    bars = NotebookCallbacks()
    bars.on_progress_start("training <b>", 20)
    bars.on_progress(5, loss=0.5)
    bars.on_progress_end()
    bars.on_progress_end()
    assert shown == [
        '<label>training &lt;b&gt; <progress max="20" value="0"></progress></label> 0 of 20 ',
        '<label>training &lt;b&gt; <progress max="20" value="5"></progress></label> 5 of 20 loss 0.5000', ""]


def test_a_notebook_has_bars_and_other_places_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Callbacks()
    assert or_default(mine) is mine
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert type(or_default(None)) is Callbacks
    for shell, kind in ((None, Callbacks), (SimpleNamespace(), Callbacks), (SimpleNamespace(kernel=1), NotebookCallbacks)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert type(or_default(None)) is kind
