"""Code beside weights: it runs only where the user names it, and no configuration names code that is not there."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import own_code
import pytest

import hubtune
from hubtune.cli import commands
from hubtune.errors import ModelError

ROWS = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
LESS = {"train.max_steps": 1, "train.verify": False}


@pytest.fixture(scope="module")
def trained(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model loads with the code beside it."""
    base = own_code.make(tmp_path_factory.mktemp("own") / "pond", tiny_model("bert"))
    folder = tmp_path_factory.mktemp("trust") / "run"
    run = hubtune.train("text-classification", model=base, data=ROWS, out=folder, set=LESS, trust_code=base)
    assert run.predict(["a row"])  # the process that wrote the code trusts it
    return folder


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run whose code leaves a trace where it runs."""
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    code = folder / "model" / "configuration_pond.py"
    mark = tmp_path / "ran"
    code.write_text(f"{code.read_text(encoding='utf-8')}\nopen({str(mark)!r}, 'w').close()\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("place", ["", "model"])
def test_code_of_a_folder_runs_only_when_the_folder_is_named(place: str, changed: Path, tmp_path: Path) -> None:
    folder = changed / place
    with pytest.raises(ModelError, match="runs only if you name it") as caught:
        hubtune.load(folder).predict(["a row"])
    assert f"--trust-code {shlex.quote(str(folder))}" in str(caught.value.hint)
    with pytest.raises(ModelError, match="is trusted, which is another"):
        hubtune.load(folder, trust_code=tmp_path).predict(["a row"])
    assert not (tmp_path / "ran").exists()
    assert hubtune.load(folder, trust_code=[folder]).predict(["a row"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", [
    ["predict", "RUN", "a row"], ["publish", "RUN", "me/name"], ["verify", "RUN"],
    ["evaluate", "RUN", "--data", "ROWS"],
])
def test_every_command_that_would_run_code_names_the_option(
    command: list[str], changed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    given = [{"RUN": str(changed), "ROWS": str(tmp_path / "rows.jsonl")}.get(word, word) for word in command]
    assert commands.main(given) == 1
    assert f"--trust-code {shlex.quote(str(changed))}" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_the_record_of_a_run_alone_does_not_let_code_run(changed: Path, tmp_path: Path) -> None:
    path = changed / "model" / "hubtune.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "loads_with": "transformers"}), encoding="utf-8")
    with pytest.raises(ModelError, match="runs only if you name it"):
        hubtune.load(changed).predict(["a row"])
    assert not (tmp_path / "ran").exists()


def test_code_of_the_hub_runs_only_at_the_commit_that_is_named(trained: Path, hub: Any) -> None:
    commit = hub.add_model("tiny/pond", trained / "model")
    for given in (None, "tiny/pond", "tiny/pond@main", f"tiny/pond@{commit[:12]}", f"other/pond@{commit}"):
        with pytest.raises(ModelError, match="runs only if you name it") as caught:
            hubtune.load(f"tiny/pond@{commit}", trust_code=given).predict(["a row"])
        assert f"--trust-code tiny/pond@{commit}" in str(caught.value.hint)
    assert hubtune.load("tiny/pond", trust_code=f"tiny/pond@{commit}").predict(["a row"])


def test_code_of_another_repository_is_refused_even_so(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    name_code(folder, {"AutoModelForSequenceClassification": "evil/code--modeling.Pond"})
    with pytest.raises(ModelError, match="code of another repository"):
        hubtune.load(folder, trust_code=folder).predict(["a row"])


def name_code(folder: Path, names: Any, file: str = "config.json") -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "auto_map": names}), encoding="utf-8")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_known_architecture_with_code_of_its_own_is_trained_only_as_the_user_says(
    file: str, tiny_model: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model("bert"), tmp_path / "model"))
    name_code(folder, {"AutoModel": "modeling_own.Own"}, file)
    with pytest.raises(ModelError, match=r"names code of its own for 'bert' .*modeling_own\.Own") as caught:
        hubtune.check("text-classification", model=folder, data=ROWS, out=tmp_path / "run")
    assert "--set model.library_class=true" in str(caught.value.hint)
    run = hubtune.train("text-classification", model=folder, data=ROWS, out=tmp_path / "run",
                        set={**LESS, "model.library_class": True})
    assert [path.name for path in (run.folder / "model").glob("*.json") if "auto_map" in path.read_text(encoding="utf-8")] == []
    assert run.record["recipe"]["model"]["library_class"] is True


def test_a_model_of_another_tool_with_code_of_its_own_is_not_predicted_unasked(tiny_model: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model("distilbert"), tmp_path / "model"))
    name_code(folder, {"AutoModelForMaskedLM": "modeling_own.Own"})
    with pytest.raises(ModelError, match="runs only if you name it") as caught:
        hubtune.load(folder, task="fill-mask").predict(["a row"])
    assert "remove 'auto_map'" in str(caught.value.hint)
