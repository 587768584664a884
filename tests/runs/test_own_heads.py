"""Heads of hubtune's on models without a class in transformers: trained, proven, published, read, verified and tuned further."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import bare_models
import pytest

import hubtune
from hubtune.contract import registry
from hubtune.errors import ModelError, RecipeError
from hubtune.models.heads import publishing
from hubtune.testing.fixtures import fixture_for

ROWS = [{"text": f"{'a good day, number' if n % 2 else 'bad'} {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
LESS = {"train.max_steps": 2, "train.verify": False}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """bare("mamba") is the folder of a tiny model of this type."""
    made: dict[str, Path] = {}

    def build(model_type: str) -> Path:
        if model_type not in made:
            made[model_type] = bare_models.make(tmp_path_factory.mktemp("bare") / model_type, model_type)
        return made[model_type]

    return build


@pytest.fixture(scope="module")
def trained(bare: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "run"
    run = hubtune.train("text-classification", model=bare("longt5"), data=ROWS, out=folder, set={"train.max_steps": 3})
    assert run.record["proof"]["largest_difference"] < 1e-5
    assert run.record["proof"]["asked"]["ways"] == ["pipeline"]
    return folder


def test_the_code_beside_the_weights_is_ours_and_hubtune_does_not_run_it(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    assert (folder / publishing.FILE).read_bytes() == publishing.SOURCE.read_bytes()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["part"], config["pooling"]) == ("hubtune-head", "encoder", "mean")
    assert config["auto_map"] == publishing.auto_map("AutoModelForSequenceClassification")
    before = hubtune.load(folder).predict(["a good day", "bad"])
    (folder / publishing.FILE).write_text("raise RuntimeError('it ran')\n", encoding="utf-8")
    assert hubtune.load(folder).predict(["a good day", "bad"]) == before
    assert hubtune.load(folder).evaluate(ROWS)["rows"] == 24
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "revision=COMMIT, trust_remote_code=True" in card
    assert "a linear layer of hubtune's on the mean of the states of the part 'encoder'" in card


def test_the_decoder_is_not_published(trained: Path) -> None:
    from safetensors import safe_open

    with safe_open(trained / "model/model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"classifier.weight", "pretrained.embed_tokens.weight"} <= names
    assert [name for name in names if "decoder" in name or "lm_head" in name] == []


def test_it_is_published_and_verified_without_trust_while_its_code_is_ours(trained: Path, logged_in: Any, tmp_path: Path) -> None:
    done = hubtune.load(trained).publish("head")
    at = f"{done['repo']}@{done['commit']}"
    assert publishing.FILE in {file["path"] for file in done["files"]}
    assert hubtune.verify(at)["proof"]["asked"]["rows"] > 0
    assert hubtune.load(at).predict(["a good day"])
    changed = Path(shutil.copytree(trained, tmp_path / "run"))
    code = changed / "model" / publishing.FILE
    code.write_text(code.read_text(encoding="utf-8") + "\n# other\n", encoding="utf-8")
    with pytest.raises(ModelError, match="runs only if you name it"):
        hubtune.verify(changed)
    assert hubtune.load(changed).predict(["a good day"])


def test_a_published_head_is_tuned_further_and_for_another_task(trained: Path, tmp_path: Path) -> None:
    again = hubtune.train("text-classification", model=trained / "model", data=ROWS, out=tmp_path / "again", set=LESS)
    assert again.predict(["a good day"])
    words = [{"tokens": ["Ada", "met", "Bob", "in", f"place{n}"], "tags": ["B-PER", "O", "B-PER", "O", "O"]} for n in range(12)]
    other = hubtune.train("token-classification", model=trained / "model", data=words, out=tmp_path / "tags", set={"train.max_steps": 2})
    assert other.record["proof"]["largest_difference"] < 1e-5
    assert len(other.predict([{"tokens": ["Ada", "met"]}])[0]["tags"]) == 2


@pytest.mark.parametrize(("model_type", "strategy"), [("mamba", "lora"), ("clip", "full"), ("olmoe", "lora"), ("codegen", "head")])
def test_other_architectures_and_strategies(model_type: str, strategy: str, bare: Any, tmp_path: Path) -> None:
    run = hubtune.train("text-classification", model=bare(model_type), data=ROWS, strategy=strategy, out=tmp_path / "run",
                        set={"train.max_steps": 6, "train.batch_size": 24, "train.learning_rate": 1e-2, "train.warmup": 0})
    assert run.record["proof"]["largest_difference"] < 1e-5
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/log.jsonl").read_text(encoding="utf-8").splitlines() if "grad_norm" in line]
    assert losses[-1] < losses[0]


def test_a_base_in_4_bits(bare: Any, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="qlora needs: pip install 'hubtune[qlora]'")
    run = hubtune.train("text-classification", model=bare("codegen"), data=ROWS, strategy="qlora", out=tmp_path / "run", set={"train.max_steps": 2})
    assert run.record["proof"]["largest_difference"] < 1e-5


@pytest.mark.parametrize(("task", "strategy"), [
    ("question-answering", "full"), ("multiple-choice", "lora"), ("reranking", "full"), ("reward-model", "lora"),
])
def test_other_tasks_for_text(task: str, strategy: str, bare: Any, tmp_path: Path) -> None:
    kind = registry.load().tasks[task]()
    rows = fixture_for(kind).sample(kind, 16)
    run = hubtune.train(task, model=bare("codegen"), data={"train": rows, "validation": rows[:4]}, strategy=strategy, out=tmp_path / "run",
                        set={"train.max_steps": 2, "train.precision": "fp32"})
    assert run.record["head"].startswith("a linear layer of hubtune's on ")
    assert run.record["proof"]["largest_difference"] < 1e-5


def test_the_published_tokenizer_pads_where_no_state_reads_it(bare: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bare("mamba"), tmp_path / "left"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "padding_side": "left"}), encoding="utf-8")
    hubtune.train("text-classification", model=folder, data=ROWS, out=tmp_path / "run", set=LESS)
    assert json.loads((tmp_path / "run/model/tokenizer_config.json").read_text(encoding="utf-8"))["padding_side"] == "right"


def test_the_user_chooses_the_pooling(bare: Any, tiny_model: Any, tmp_path: Path) -> None:
    run = hubtune.train("text-classification", model=bare("bert-generation"), data=ROWS, out=tmp_path / "run",
                        set={**LESS, "task.pooling": "first"})
    assert json.loads((tmp_path / "run/model/config.json").read_text(encoding="utf-8"))["pooling"] == "first"
    assert run.predict(["a good day"]) == hubtune.load(tmp_path / "run/model").predict(["a good day"])
    with pytest.raises(RecipeError, match=r"task\.pooling=mean is for heads of hubtune's; 'bert' models have a class"):
        hubtune.check("text-classification", model=tiny_model("bert"), data=ROWS, set={"task.pooling": "mean"})


def test_strategies_that_are_published_over_a_class_of_transformers_are_refused(bare: Any) -> None:
    with pytest.raises(ModelError, match="the strategy 'prompt-tuning' is published over a class of transformers"):
        hubtune.check("text-classification", model=bare("mamba"), data=ROWS, strategy="prompt-tuning")


def test_adapters_stand_below_a_head_of_ours_and_are_tuned_further(bare: Any, tmp_path: Path) -> None:
    """Each run is of the model that the last one published; plain transformers gives the proven answers."""
    model = bare("longt5")
    for strategy in ("adapters", "lora"):
        run = hubtune.train("text-classification", model=model, data=ROWS, strategy=strategy, out=tmp_path / strategy, set={"train.max_steps": 2})
        assert run.record["loads_with"] == "code"
        assert run.record["proof"]["largest_difference"] < 1e-5
        model = run.folder / "model"
    assert sorted(path.name for path in model.glob("*.py")) == ["modeling_hubtune_adapters.py", publishing.FILE]
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    assert config["hubtune_adapters"]["model"] == "HubtuneForSequenceClassification"
    assert "_name_or_path" not in config["backbone_config"]
    assert hubtune.verify(model)["proof"]["asked"]["rows"] > 0
    assert hubtune.load(model).predict(["a good day"]) == hubtune.load(tmp_path / "lora").predict(["a good day"])


def test_show_says_which_head_a_task_would_use(bare: Any) -> None:
    found = {task["name"]: task for task in hubtune.show(bare("mamba"))["tasks"]}
    assert found["text-classification"]["head"] == (
        "a linear layer of hubtune's on the last state that is no padding of the base model (32 numbers)")
    assert found["token-classification"]["head"] == "a linear layer of hubtune's on every state of the base model (32 numbers)"
    assert found["text-generation"] == {"name": "text-generation", "fits": True, "reason": None, "head": None}
    assert not found["image-classification"]["fits"]
    assert "no part of 'mamba' models reads images alone" in found["image-classification"]["reason"]


def test_images_and_sounds_do_not_need_a_class_either(bare: Any) -> None:
    pytest.importorskip("PIL", reason="images need: pip install 'hubtune[vision]'")
    assert [task["fits"] for task in hubtune.show(bare("clip_vision_model"))["tasks"] if task["name"] == "image-classification"] == [True]
    assert [task["fits"] for task in hubtune.show(bare("moonshine"))["tasks"] if task["name"] == "audio-classification"] == [True]
