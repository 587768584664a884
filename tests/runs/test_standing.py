"""Publishing over a model on main: both are compared on the same rows, and main is kept unless the new one is better."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own_code
import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

import hubtune
from hubtune.cli import commands
from hubtune.hub import retries
from hubtune.runs import standing

WRITING = ("POST", "PUT", "PATCH", "DELETE")
Make = Callable[..., Path]


def rows(count: int, labels: tuple[str, str] = ("no", "yes")) -> list[dict[str, str]]:
    """Rows that tell their label, all different."""
    words = ("broken awful bad", "great lovely good")
    return [{"text": f"{words[n % 2]} {n}", "label": labels[n % 2]} for n in range(count)]


@pytest.fixture(scope="module")
def make(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """make(steps, learning_rate) is the folder of a run on 120 rows, 40 of them test rows; each trained once."""
    made: dict[str, Path] = {}

    def build(steps: int = 1, learning_rate: float = 1e-6, labels: tuple[str, str] = ("no", "yes")) -> Path:
        key = repr((steps, learning_rate, labels))
        if key not in made:
            place = tmp_path_factory.mktemp("standing")
            (place / "data").mkdir()
            found = rows(120, labels)
            for split, part in (("train", found[:60]), ("validation", found[60:80]), ("test", found[80:])):
                (place / f"data/{split}.jsonl").write_text("\n".join(map(json.dumps, part)), encoding="utf-8")
            hubtune.train("text-classification", model=tiny_model("bert"), data=place / "data", out=place / "run", set={
                "train.max_steps": steps, "train.learning_rate": learning_rate, "train.verify": False, "train.warmup": 0.0})
            made[key] = place / "run"
        return made[key]

    return build


@pytest.fixture
def weak(make: Make) -> Path:
    """A run that has learned nothing."""
    return make()


@pytest.fixture
def strong(make: Make) -> Path:
    """A run that has learned the rows."""
    run = make(60, 3e-3)
    assert hubtune.Run(run).metrics["accuracy"] > 0.9
    return run


class Said(hubtune.Callbacks):
    """Callbacks that keep what they are told, and what the Hub was sent before."""

    def __init__(self, hub: Any) -> None:
        self.hub, self.first = hub, len(hub.requests)
        self.lines: list[tuple[str, int]] = []

    def on_info(self, text: str) -> None:
        self.lines.append((text, len(written(self.hub, self.first))))

    on_warning = on_info

    def line(self, part: str) -> tuple[str, int]:
        """The line with a text, and how many requests that write came before it."""
        return next(found for found in self.lines if part in found[0])


def written(hub: Any, first: int) -> list[str]:
    """Requests from a number on that write a commit."""
    return [one.path for one in hub.requests[first:] if one.method in WRITING and "/commit/" in one.path]


def main_of(repo: str) -> str:
    return str(HfApi().model_info(repo).sha)


def test_a_better_model_is_committed_to_main(weak: Path, strong: Path, logged_in: Any) -> None:
    first = hubtune.Run(weak).publish("me/better")
    assert first["comparison"] is None  # nothing was there
    said, run = Said(logged_in), hubtune.Run(strong)
    done = run.publish("me/better", callbacks=said)
    assert done["pr"] is None
    assert main_of("me/better") == done["commit"]
    text, sent = said.line("The new model is better than the model on main of me/better")
    assert sent == 0
    assert "on the same 40 test rows, " in text
    compared = run.record["published"]["comparison"]
    assert compared == done["comparison"]
    assert (compared["verdict"], compared["split"], compared["rows"]) == ("better", "test", 40)
    assert compared["commit"] == first["commit"] == done["parent"]
    low, high = compared["difference"]["interval"]
    assert 0 < low < compared["difference"]["value"] < high
    kept = json.loads((strong / "run.json").read_text(encoding="utf-8"))
    assert kept["published"]["comparison"] == compared


def test_a_worse_model_is_proposed_and_replaces_only_where_told(
    weak: Path, strong: Path, logged_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = hubtune.Run(strong).publish("me/worse")
    said = Said(logged_in)
    done = hubtune.Run(weak).publish("me/worse", callbacks=said)
    assert "/discussions/" in done["pr"]
    assert main_of("me/worse") == first["commit"]
    text, sent = said.line("The new model is worse than")
    assert sent == 0
    assert f"hubtune publish {weak} me/worse --replace" in text
    (opened,) = HfApi().get_repo_discussions("me/worse")
    shown = HfApi().get_discussion_details("me/worse", opened.num)
    assert done["comparison"]["text"] in str(shown.events[0].content)
    assert hubtune.Run(weak).publish("me/worse")["pr"] == done["pr"]  # the same command again opens no second one
    assert commands.main(["publish", str(weak), "me/worse", "--replace", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pr"], told["comparison"]) == (None, None)
    assert main_of("me/worse") == told["commit"]


def test_a_difference_that_may_be_chance_is_proposed(make: Make, strong: Path, logged_in: Any) -> None:
    first = hubtune.Run(strong).publish("me/uncertain")
    done = hubtune.Run(make(61, 3e-3)).publish("me/uncertain")
    assert done["comparison"]["verdict"] == "uncertain"
    assert "not certainly better than" in done["comparison"]["text"]
    assert done["pr"]
    assert main_of("me/uncertain") == first["commit"]


def test_the_same_files_are_not_compared_and_nothing_new_is_sent(weak: Path, logged_in: Any) -> None:
    first = hubtune.Run(weak).publish("me/again")
    again = hubtune.Run(weak).publish("me/again")
    assert (again["commit"], again["pr"], again["comparison"]) == (first["commit"], None, None)


def test_a_repository_without_weights_gets_its_first_model_on_main(weak: Path, logged_in: Any) -> None:
    logged_in.add_model("me/no-weights", {"README.md": b"# Soon\n"})
    done = hubtune.Run(weak).publish("me/no-weights")
    assert (done["pr"], done["comparison"]) == (None, None)


def test_other_labels_and_other_tasks_are_proposed_with_the_reason(
    make: Make, weak: Path, tiny_model: Any, logged_in: Any
) -> None:
    hubtune.Run(make(labels=("bad", "good"))).publish("me/labels")
    done = hubtune.Run(weak).publish("me/labels")
    assert done["pr"]
    assert done["comparison"]["verdict"] == "not compared"
    assert done["comparison"]["reason"] == (
        "its labels are bad, good (single_label), and the other one's no, yes (single_label)")
    logged_in.add_model("me/task", tiny_model("bert"))
    done = hubtune.Run(weak).publish("me/task")
    assert done["pr"]
    assert done["comparison"]["reason"] == "it is for the task 'sentence-similarity', and the other one for 'text-classification'"


@pytest.mark.parametrize(("change", "reason"), [
    ("pickle", "no safetensors"), ("without head", "classifier.* would be random"), ("no configuration", "config.json"),
])
def test_a_model_that_cannot_be_loaded_is_not_replaced(
    change: str, reason: str, weak: Path, strong: Path, tmp_path: Path, logged_in: Any
) -> None:
    repo = f"me/unloadable-{change.split()[-1]}"
    model = Path(shutil.copytree(weak / "model", tmp_path / "model"))
    if change == "pickle":
        (model / "model.safetensors").rename(model / "pytorch_model.bin")
    elif change == "without head":
        weights = load_file(model / "model.safetensors")
        save_file({name: value for name, value in weights.items() if "classifier" not in name}, model / "model.safetensors",
                  metadata={"format": "pt"})
    else:
        (model / "config.json").unlink()
    logged_in.add_model(repo, model)
    before = main_of(repo)
    done = hubtune.Run(strong).publish(repo)
    assert done["pr"]
    assert main_of(repo) == before
    assert done["comparison"]["verdict"] == "not compared"
    assert re.search(reason, done["comparison"]["reason"]), done["comparison"]["reason"]


def publish_adapter(repo: str, base: str, out: Path) -> None:
    """Publish an adapter alone, over a base."""
    hubtune.train("text-classification", model=base, data=rows(60), out=out, strategy="prompt-tuning",
                  set={"train.max_steps": 1, "train.verify": False}).publish(repo)
    assert "model.safetensors" not in HfApi().list_repo_files(repo)


def test_an_adapter_alone_is_compared_over_its_base(strong: Path, tmp_path: Path, logged_in: Any) -> None:
    publish_adapter("me/adapter", "tiny/bert", tmp_path / "run")
    done = hubtune.Run(strong).publish("me/adapter")
    assert done["comparison"]["verdict"] in ("better", "uncertain", "worse")
    assert done["comparison"]["rows"] == 40
    assert (done["pr"] is None) == (done["comparison"]["verdict"] == "better")


@pytest.mark.parametrize("base", ["unknown folder", "gone"])
def test_an_adapter_whose_base_is_not_there_is_a_reason(
    base: str, strong: Path, tiny_model: Any, tmp_path: Path, logged_in: Any
) -> None:
    repo = f"me/adapter-{base.split()[-1]}"
    if base == "gone":
        logged_in.add_model("tiny/gone", tiny_model("bert"))
    publish_adapter(repo, "tiny/gone" if base == "gone" else str(tiny_model("bert")), tmp_path / "run")
    if base == "gone":
        logged_in.store.delete(logged_in.store.get("model", "tiny/gone"))
    before = main_of(repo)
    done = hubtune.Run(strong).publish(repo)
    assert done["pr"]
    assert main_of(repo) == before
    assert re.search("was a local folder" if base != "gone" else "has no model 'tiny/gone'", done["comparison"]["reason"]), done["comparison"]["reason"]


@pytest.mark.parametrize("kind", ["adapter of PEFT", "code without trust"])
def test_a_model_of_others_or_with_code_is_compared_or_a_reason(
    kind: str, strong: Path, tiny_model: Any, tmp_path: Path, logged_in: Any
) -> None:
    """No tool, and not the order of publications, may end a publication with an error."""
    repo = f"me/others-{kind.replace(' ', '-').lower()}"
    if kind == "adapter of PEFT":
        peft = pytest.importorskip("peft")
        from transformers import AutoModelForSequenceClassification

        model = AutoModelForSequenceClassification.from_pretrained(tiny_model("bert"), num_labels=2)
        model.name_or_path = "tiny/bert"
        peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=2)).save_pretrained(tmp_path / "theirs")
        logged_in.add_model(repo, tmp_path / "theirs")
        reason = "adapter"
    else:
        logged_in.add_model(repo, own_code.make(tmp_path / "pond", tiny_model("bert"), mark=tmp_path / "ran"))
        reason = "code|no hubtune.json|task"
    before = main_of(repo)
    done = hubtune.Run(strong).publish(repo)
    assert done["pr"]
    assert main_of(repo) == before
    assert done["comparison"]["verdict"] == "not compared"
    assert re.search(reason, done["comparison"]["reason"]), done["comparison"]["reason"]
    assert not (tmp_path / "ran").exists()


def test_a_model_with_adapters_of_ours_is_compared(strong: Path, tmp_path: Path, logged_in: Any) -> None:
    """No code of its repository is needed, so it is asked like any other."""
    hubtune.train("text-classification", model="tiny/bert", data=rows(60), out=tmp_path / "run", strategy="adapters",
                  set={"train.max_steps": 1, "train.verify": False}).publish("me/adapted")
    done = hubtune.Run(strong).publish("me/adapted", dry_run=True)
    assert done["comparison"]["verdict"] != "not compared"


def test_rows_that_changed_or_came_from_memory_are_a_reason(
    weak: Path, strong: Path, tiny_model: Any, tmp_path: Path, logged_in: Any
) -> None:
    hubtune.Run(weak).publish("me/rows")
    source = Path(hubtune.Run(strong).record["recipe"]["data"]["source"])
    test = source / "test.jsonl"
    content = test.read_text(encoding="utf-8")
    test.write_text(content + '\n{"text": "more", "label": "yes"}', encoding="utf-8")
    try:
        done = hubtune.Run(strong).publish("me/rows", dry_run=True)
    finally:
        test.write_text(content, encoding="utf-8")
    assert "the data has changed since the run began" in done["comparison"]["reason"]
    source.rename(tmp_path / "elsewhere")
    try:
        done = hubtune.Run(strong).publish("me/rows")
    finally:
        (tmp_path / "elsewhere").rename(source)
    assert done["pr"]
    assert str(source) in done["comparison"]["reason"]
    made = hubtune.train("text-classification", model=tiny_model("bert"), data=rows(60), out=tmp_path / "run",
                         set={"train.max_steps": 1, "train.verify": False})
    done = made.publish("me/rows", dry_run=True)
    assert "came from memory" in done["comparison"]["reason"]
    compared = made.publish("me/rows", dry_run=True, data=rows(60))["comparison"]
    assert compared["split"] == "validation"
    assert any("which favours it" in note for note in compared["notes"])
    assert any("trained on other data" in note for note in compared["notes"])


def test_main_that_moved_while_the_models_were_compared_is_kept(
    weak: Path, strong: Path, logged_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hubtune.Run(weak).publish("me/moved")
    compare = standing.compare

    def compare_late(*given: Any) -> Any:
        found = compare(*given)
        HfApi().upload_file(path_or_fileobj=b"theirs", path_in_repo="notes.txt", repo_id="me/moved")
        return found

    monkeypatch.setattr(standing, "compare", compare_late)
    with pytest.raises(hubtune.HubError, match="main of 'me/moved' moved from") as refused:
        hubtune.Run(strong).publish("me/moved")
    assert refused.value.kind == "conflict"
    monkeypatch.undo()


def test_a_dry_run_compares_and_a_hub_that_does_not_answer_is_its_reason(
    weak: Path, strong: Path, logged_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hubtune.Run(weak).publish("me/dry")
    before = len(logged_in.requests)
    assert hubtune.Run(strong).publish("me/dry", dry_run=True)["comparison"]["verdict"] == "better"
    assert not written(logged_in, before)
    monkeypatch.setattr(retries, "WAITS", ())
    logged_in.fail_next("GET", r"/api/models/me/dry", status=500)
    said = Said(logged_in)
    done = hubtune.Run(strong).publish("me/dry", dry_run=True, callbacks=said)
    assert done["comparison"]["reason"].startswith("the Hub answered 500")
    assert said.line("Nothing was compared with main of me/dry: the Hub answered 500")
    assert not [text for text, _ in said.lines if "pull request" in text]
    logged_in.fail_next("GET", r"/api/models/me/dry", status=500)
    with pytest.raises(hubtune.HubError, match="answered 500"):  # but a publication is not decided on it
        hubtune.Run(strong).publish("me/dry")


def test_train_with_push_takes_the_setting(
    weak: Path, tiny_model: Any, tmp_path: Path, logged_in: Any
) -> None:
    hubtune.Run(weak).publish("me/pushed")
    done = hubtune.train("text-classification", model=tiny_model("bert"), data=rows(60), out=tmp_path / "first",
                         push="me/pushed", set={"train.max_steps": 1, "train.verify": False})
    assert done.summary()["published"]["pr"]
    assert done.record["published"]["comparison"]["rows"] > 0  # of the rows from memory
    done = hubtune.train("text-classification", model=tiny_model("bert"), data=rows(60), out=tmp_path / "run",
                         push="me/pushed", replace=True, set={"train.max_steps": 1, "train.verify": False})
    assert done.record["recipe"]["publish"]["replace"] is True
    assert main_of("me/pushed") == done.record["published"]["commit"]
