"""A base with code of its own: trained, read and published with that code where the user names it, and not touched before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import own_code
import pytest

import hubtune
from hubtune.cli import commands
from hubtune.errors import ModelError, RecipeError
from hubtune.recipe import build

ROWS = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
LESS = {"train.max_steps": 2, "train.verify": False}


@pytest.fixture(scope="module")
def base(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_code.make(tmp_path_factory.mktemp("own") / "pond", tiny_model("bert"))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    run = hubtune.train("text-classification", model=base, data=ROWS, out=folder, set={"train.max_steps": 2}, trust_code=base)
    assert run.record["proof"]["largest_difference"] < 1e-5
    assert run.record["proof"]["asked"]["rows"] == 2
    return folder


def test_its_code_does_not_run_unasked(tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marked = own_code.make(tmp_path / "pond", tiny_model("bert"), mark=tmp_path / "ran")
    given = {"model": marked, "data": ROWS, "set": LESS}
    for call in (hubtune.check, hubtune.plan, hubtune.train):
        for trust in (None, tmp_path):
            with pytest.raises(ModelError, match=r"custom code|runs only if you name it") as caught:
                call("text-classification", out=tmp_path / "run", trust_code=trust, **given)
            assert f"--trust-code {marked}" in str(caught.value.hint)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    command = ["train", "text-classification", "--model", str(marked), "--data", str(tmp_path / "rows.jsonl"), "--check"]
    assert commands.main(command) == 1
    assert f"--trust-code {marked}" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert commands.main([*command, "--trust-code", str(marked)]) == 0
    assert (tmp_path / "ran").exists()


def test_no_recipe_lets_code_run(base: Path) -> None:
    with pytest.raises(RecipeError, match="trust"):
        build({"task": {"name": "text-classification"}, "model": {"id": str(base), "trusted": [str(base)]}})
    with pytest.raises(RecipeError, match=r"--trust-code runs the model's code, and model\.library_class=true leaves it out"):
        hubtune.check("text-classification", model=base, data=ROWS, set={"model.library_class": True}, trust_code=base)


def test_the_run_has_the_code_and_reads_with_it(trained: Path, base: Path) -> None:
    for name in ("configuration_pond.py", "modeling_pond.py"):
        assert (trained / "model" / name).read_bytes() == (base / name).read_bytes()
    with pytest.raises(ModelError, match="runs only if you name it"):
        hubtune.load(trained).predict(["row 1"])
    run = hubtune.load(trained, trust_code=trained)
    assert {found["label"] for found in run.predict(["row 1", "row 2"])} <= {"yes", "no"}
    assert run.evaluate(ROWS)["rows"] == 24
    assert hubtune.verify(trained, trust_code=trained)["proof"]["examples"] == 2
    card = (trained / "model" / "README.md").read_text(encoding="utf-8")
    assert "revision=COMMIT, trust_remote_code=True" in card


def test_it_is_published_with_its_code_and_verified_at_its_commit(trained: Path, logged_in: Any) -> None:
    with pytest.raises(ModelError, match="runs only if you name it"):
        hubtune.load(trained).publish("pond")
    done = hubtune.load(trained, trust_code=trained).publish("pond")
    assert {"configuration_pond.py", "modeling_pond.py"} <= {file["path"] for file in done["files"]}
    at = f"{done['repo']}@{done['commit']}"
    with pytest.raises(ModelError, match="runs only if you name it"):
        hubtune.verify(at)
    assert hubtune.verify(at, trust_code=at)["proof"]["asked"]["rows"] > 0
    again = hubtune.train("text-classification", model=at, data=ROWS, out=trained.parent / "again", set=LESS, trust_code=at)
    assert again.predict(["row 1"])


def test_a_base_of_the_hub_is_trained_at_the_commit_that_is_named(base: Path, hub: Any, tmp_path: Path) -> None:
    commit = hub.add_model("tiny/pond", base)
    for given in (None, "tiny/pond", "tiny/pond@main", f"other/pond@{commit}"):
        with pytest.raises(ModelError) as caught:
            hubtune.check("text-classification", model="tiny/pond", data=ROWS, out=tmp_path / "run", trust_code=given)
        assert f"--trust-code tiny/pond@{commit}" in str(caught.value.hint)
    run = hubtune.train("text-classification", model="tiny/pond", data=ROWS, out=tmp_path / "run", strategy="lora", set=LESS,
                        trust_code=f"tiny/pond@{commit}")
    assert run.predict(["row 1"])


def test_a_stopped_run_goes_on_only_with_the_option(trained: Path, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    class Stop(hubtune.Callbacks):
        def on_evaluate(self, *given: Any, **more: Any) -> None:
            raise KeyboardInterrupt

    settings = {"train.max_steps": 4, "train.verify": False, "train.evals_per_epoch": 2}
    with pytest.raises(KeyboardInterrupt):
        hubtune.train("text-classification", model=base, data=ROWS, out=folder, set=settings, trust_code=base, callbacks=Stop())
    with pytest.raises(ModelError, match="custom code"):
        hubtune.resume(folder, data=ROWS)
    whole = hubtune.train("text-classification", model=base, data=ROWS, out=tmp_path / "whole", set=settings, trust_code=base)
    run = hubtune.resume(folder, data=ROWS, trust_code=base)
    assert (run.folder / "model/model.safetensors").read_bytes() == (whole.folder / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize("strategy", ["adapters", "prompt-tuning"])
def test_strategies_that_are_not_published_as_a_whole_model_are_refused(strategy: str, base: Path) -> None:
    with pytest.raises(RecipeError, match=f"'{strategy}' is published as .* over a model of transformers"):
        hubtune.check("text-classification", model=base, data=ROWS, strategy=strategy, trust_code=base)


def test_code_of_its_own_for_a_known_architecture_is_used_where_it_is_named(tiny_model: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model("bert"), tmp_path / "bert"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_own.Own"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "modeling_own.py").write_text(
        "from transformers import BertForSequenceClassification\n\n\nclass Own(BertForSequenceClassification):\n    pass\n",
        encoding="utf-8")
    run = hubtune.train("text-classification", model=folder, data=ROWS, out=tmp_path / "run", set=LESS, trust_code=folder)
    assert type(run.load_weights()[0]).__name__ == "Own"
    assert (run.folder / "model/modeling_own.py").exists()


def test_a_tokenizer_with_code_of_its_own_is_published_with_it(tiny_model: Any, tmp_path: Path) -> None:
    folder = own_code.make(tmp_path / "pond", tiny_model("bert"))
    (folder / "tokenization_pond.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n\n\nclass PondTokenizer(PreTrainedTokenizerFast):\n    pass\n", encoding="utf-8")
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "tokenizer_class": "PondTokenizer",
              "auto_map": {"AutoTokenizer": [None, "tokenization_pond.PondTokenizer"]}}
    path.write_text(json.dumps(config), encoding="utf-8")
    run = hubtune.train("text-classification", model=folder, data=ROWS, out=tmp_path / "run", set={"train.max_steps": 1}, trust_code=folder)
    assert run.record["proof"]["asked"]["rows"] == 2
    assert (run.folder / "model/tokenization_pond.py").exists()
    assert type(hubtune.load(run.folder, trust_code=run.folder).open_base().processor).__name__.startswith("PondTokenizer")
