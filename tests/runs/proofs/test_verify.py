"""`hubtune verify` and `hubtune reproduce`: of runs, folders and models of the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

import hubtune
from hubtune.cli import commands
from hubtune.runs.proofs import reproduce

SETTINGS = {"train.epochs": 1.0, "data.limit": 60, "train.verify": False}


@pytest.fixture(scope="module")
def trained(hub: Any, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on a base model of the Hub."""
    out = tmp_path_factory.mktemp("verified") / "run"
    hubtune.train("sentiment", model="tiny/bert", data=reviews, set=SETTINGS, out=out)
    return out


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy of the model's folder, far from its run."""
    return Path(shutil.copytree(trained / "model", tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_a_run_and_a_folder_and_a_model_of_the_hub_are_verified(trained: Path, model: Path, logged_in: Any, capsys: Any) -> None:
    done = hubtune.Run(trained).publish("me/verified")
    found = hubtune.verify(trained)
    assert found["proof"]["examples"] > 0
    assert found["proof"]["asked"]["rows"] == 6
    for name in (str(model), "me/verified", f"me/verified@{done['commit']}"):
        found = hubtune.verify(name)
        assert (found["files"], found["proof"]["asked"]["rows"]) == (4, 2)
        assert found["proof"]["asked"]["largest_difference"] <= 1e-4
    assert found["commit"] == done["commit"]
    assert commands.main(["verify", "me/verified"]) == 0
    printed = capsys.readouterr().out
    assert "it is what its training saved" in printed
    assert "That says nothing of how good its answers are." in printed
    assert commands.main(["verify", str(trained), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sealed"]


@pytest.mark.parametrize(("name", "content", "says"), [
    ("config.json", None, "config.json: changed"), ("tokenizer.json", None, "tokenizer.json: changed"),
    ("model.safetensors", None, "model.safetensors: changed"), ("tokenizer_config.json", "", "tokenizer_config.json: missing"),
    ("generation_config.json", "{}", "generation_config.json: would be loaded, and is not of this model"),
    ("adapter_config.json", "{}", "adapter_config.json: would be loaded, and is not of this model"),
])
def test_a_changed_folder_is_refused_by_name(model: Path, name: str, content: str | None, says: str, capsys: Any) -> None:
    path = model / name
    if content is None:
        path.write_bytes(path.read_bytes() + b" ")
    elif content:
        path.write_text(content, encoding="utf-8")
    else:
        path.unlink()
    assert commands.main(["verify", str(model), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "proof-error"
    assert says in error["message"]


def test_a_folder_with_a_forged_seal_answers_otherwise(model: Path) -> None:
    from hubtune.runs import seal

    weights = load_file(model / "model.safetensors")
    weights["classifier.weight"].zero_()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    record = json.loads((model / "hubtune.json").read_text(encoding="utf-8"))
    files = {name: digest for name, digest in seal.hash_folder(model).items() if name in record["seal"]["files"]}
    edit(model / "hubtune.json", seal={**record["seal"], "files": files})
    with pytest.raises(hubtune.ProofError, match=r"answers row 1 of 2 otherwise"):
        hubtune.verify(model)


@pytest.mark.parametrize("part", ["facts", "decisions", "recipe", "task"])
def test_an_edited_hubtune_json_is_refused_by_part(model: Path, part: str) -> None:
    record = json.loads((model / "hubtune.json").read_text(encoding="utf-8"))
    edit(model / "hubtune.json", **{part: {**record[part], "added": 1}})
    with pytest.raises(hubtune.ProofError, match=rf"hubtune\.json: '{part}' was changed"):
        hubtune.verify(model)


def test_a_card_with_another_score_is_refused(trained: Path, logged_in: Any) -> None:
    hubtune.Run(trained).publish("me/praised")
    path = HfApi().hf_hub_download("me/praised", "README.md")
    card = Path(path).read_text(encoding="utf-8")
    value = json.loads((trained / "run.json").read_text(encoding="utf-8"))["metrics"]["validation"]["accuracy"]
    changed = card.replace(f"value: {round(value, 6)}", "value: 0.999")
    assert changed != card
    HfApi().upload_file(path_or_fileobj=changed.encode(), path_in_repo="README.md", repo_id="me/praised")
    with pytest.raises(hubtune.ProofError, match=r"README\.md: says accuracy 0\.999 on validation"):
        hubtune.verify("me/praised")


@pytest.mark.parametrize("proof", [None, 7, {"files": 3}, {"files": {}, "config": {}, "record": {}, "results": {"a": 1}, "processor": "AutoTokenizer"},
                                   {"files": {}, "config": {}, "record": {}, "results": {}, "processor": "__file__"}])
def test_a_model_without_a_seal_is_told_so(model: Path, proof: Any) -> None:
    edit(model / "hubtune.json", seal=proof)
    with pytest.raises(hubtune.ProofError, match="has no seal"):
        hubtune.verify(model)


def test_a_model_that_hubtune_did_not_tune_is_told_so(tiny_model: Any, capsys: Any) -> None:
    with pytest.raises(hubtune.ModelError, match="hubtune did not tune it"):
        hubtune.verify(tiny_model("bert"))


def test_a_run_is_reproduced_bit_for_bit(trained: Path, tmp_path: Path, capsys: Any) -> None:
    assert commands.main(["reproduce", str(trained), "--out", str(tmp_path / "again"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"]
    assert not found["versions"]
    assert not found["weights"]
    assert load_file(tmp_path / "again/model/model.safetensors").keys() == load_file(trained / "model/model.safetensors").keys()


def test_a_published_model_needs_its_data_and_differs_where_its_record_does(
    trained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    record = json.loads((model / "hubtune.json").read_text(encoding="utf-8"))
    record["seal"]["results"]["validation"]["accuracy"] = 0.5
    edit(model / "hubtune.json", versions={**record["versions"], "torch": "1.0"}, seal=record["seal"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hubtune.RecipeError, match=r"its data is not here: there is no 'reviews\.csv'") as refused:
        hubtune.reproduce(model)
    assert "--data" in str(refused.value.hint)
    (tmp_path / "other.csv").write_text("text,label\n" + "fine,good\nawful,bad\n" * 30, encoding="utf-8")
    with pytest.raises(hubtune.HubtuneError):
        hubtune.reproduce(model, data="other.csv")
    assert commands.main(["reproduce", str(model), "--data", str(reviews), "--out", "again", "--json"]) == 1
    said = capsys.readouterr()
    assert "the model was trained with 1.0" in said.err
    found = json.loads(said.out)
    assert found["weights"] == {}
    assert list(found["metrics"]) == ["validation accuracy"]
    assert found["metrics"]["validation accuracy"][0] == 0.5


def test_a_plan_that_this_machine_cannot_follow_is_left_out(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    edit(folder / "run.json", compute={**record["compute"], "precision": "no-such"})
    said: list[str] = []
    told = hubtune.Callbacks()
    told.on_warning = said.append  # type: ignore[method-assign]
    found = reproduce.from_run(folder, told)
    assert found.recipe.train.plan is None
    assert any("may differ in their last bits" in line for line in said)
