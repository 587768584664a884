"""From Hub to Hub on loopback: pull, tune, publish as one commit, and use it without hubtune."""

import csv
import json
import os
import signal
import subprocess
import sys

import pytest
from huggingface_hub import HfApi, ModelCard, try_to_load_from_cache

import hubtune
from hubtune.cli import commands
from hubtune.hub import retries

FAST = {"train.epochs": 1.0, "data.limit": 60, "train.verify": False}

PLAIN = """
import csv, json, sys
sys.modules["hubtune"] = None
from transformers import pipeline
pipe = pipeline("text-classification", model=sys.argv[1], top_k=None)
texts = [row["text"] for row in csv.DictReader(open(sys.argv[2], newline=""))][:200]
print(json.dumps([{one["label"]: one["score"] for one in found} for found in pipe(texts)]))
"""


@pytest.fixture(scope="module")
def runs(hub, reviews, tmp_path_factory):
    """A run of each strategy from the Hub's MiniLM, trained once."""
    made = {}

    def run(strategy):
        if strategy not in made:
            made[strategy] = hubtune.train(
                "sentiment", model="sentence-transformers/all-MiniLM-L6-v2", data=reviews, strategy=strategy,
                set={**FAST, "train.max_length": 64}, out=tmp_path_factory.mktemp(strategy) / "run",
            )
        return made[strategy]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_what_is_published_answers_in_plain_transformers_as_the_run_does(strategy, runs, logged_in, reviews):
    run = runs(strategy)
    done = run.publish(f"me/reviews-{strategy}")
    assert len(done["commit"]) == 40
    said = subprocess.run([sys.executable, "-c", PLAIN, done["repo"], str(reviews)], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    plain = json.loads(said.stdout)
    with reviews.open(newline="") as file:
        ours = run.predict([row["text"] for row in csv.DictReader(file)][:200])
    worst = max(abs(theirs[name] - value) for theirs, mine in zip(plain, ours, strict=True)
                for name, value in mine["probabilities"].items())
    assert len(plain) == 200
    assert worst < 1e-4
    again = hubtune.load(f"{done['repo']}@{done['commit']}")
    assert again.task.name == "sentiment"
    assert [p["label"] for p in again.predict(["A delight.", "Broken."])] == [
        p["label"] for p in run.predict(["A delight.", "Broken."])]


def test_publishing_is_one_commit_with_a_true_card_and_only_the_files_that_belong(runs, logged_in):
    run = runs("lora")
    dry = run.publish("me/one-commit", dry_run=True)
    assert dry["dry_run"]
    assert dry["commit"] is None
    before = len(logged_in.requests)
    done = run.publish("me/one-commit")
    assert sum("/commit/" in served.path and served.method == "POST" for served in logged_in.requests[before:]) == 1
    api = HfApi()
    info = api.model_info("me/one-commit", files_metadata=True)
    assert info.private
    assert info.sha == done["commit"]
    names = {sibling.rfilename for sibling in info.siblings}
    assert names - {".gitattributes"} == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "hubtune.json",
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
    }
    card = ModelCard.load("me/one-commit")
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.to_dict()["base_model_relation"] == "finetune"
    assert card.data.license == "apache-2.0"
    assert card.data.language == "en"
    assert (card.data.pipeline_tag, card.data.library_name) == ("text-classification", "transformers")
    value = run.record["metrics"]["validation"]["accuracy"]
    assert any(r.metric_type == "accuracy" and r.metric_value == pytest.approx(value, abs=1e-6) for r in card.data.eval_results)
    assert run.record["base"]["commit"] in card.text
    assert 'model="me/one-commit"' in card.text


def test_a_second_publish_has_the_first_as_its_parent_and_leaves_other_files(runs, logged_in):
    run = runs("lora")
    first = run.publish("me/twice")
    api = HfApi()
    api.upload_file(path_or_fileobj=b"kept", path_in_repo="notes.txt", repo_id="me/twice")
    api.upload_file(path_or_fileobj=b"old", path_in_repo="pytorch_model.bin", repo_id="me/twice")
    head = api.model_info("me/twice").sha
    second = runs("full").publish("me/twice", replace=True)
    assert second["parent"] == head != first["commit"]
    names = {s.rfilename for s in api.model_info("me/twice").siblings}
    assert "notes.txt" in names
    assert "pytorch_model.bin" not in names


def test_a_pull_request_is_proposed_in_a_repository_of_others(runs, hub, monkeypatch):
    hub.add_org("theirs")
    hub.add_model("theirs/model", {"README.md": b"# theirs\n"})
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with pytest.raises(hubtune.HubtuneError, match="may not write") as refused:
        runs("lora").publish("theirs/model")
    assert "--pr" in refused.value.hint
    done = runs("lora").publish("theirs/model", pr=True)
    assert "/discussions/" in done["pr"]
    assert HfApi().model_info("theirs/model").sha != done["commit"]


def test_a_commit_whose_answer_was_lost_is_found_and_not_made_twice(runs, logged_in):
    runs("lora").publish("me/lost-first")
    logged_in.fail_next("POST", r"/commit/main$", status=None, after=True)
    done = runs("lora").publish("me/lost")
    history = HfApi().list_repo_commits("me/lost")
    assert history[0].commit_id == done["commit"]
    assert sum(commit.title == history[0].title for commit in history) == 1


def test_a_damaged_download_is_fetched_again(hub, logged_in, tmp_path, tiny_model):
    from hubtune import hub as client

    logged_in.add_model("tiny/fragile", tiny_model("distilbert"))
    logged_in.corrupt_next(r"model\.safetensors$")
    pinned = client.resolve("tiny/fragile")
    folder = client.download(pinned, ["config.json", "model.safetensors"])
    assert (folder / "model.safetensors").read_bytes() == (tiny_model("distilbert") / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("model", "arguments", "kind", "says"),
    [
        ("tiny/brt", {}, "not-found", "Did you mean 'tiny/bert'"),
        ("tiny/gated", {}, "gated", "is gated"),
        ("tiny/pickle", {}, "unsafe", "no safetensors"),
        ("tiny/bert@nope", {}, "not-found", "no revision 'nope'"),
        ("else/private", {}, "not-found", "private"),
        ("not an id!", {}, "not-found", "neither a folder nor"),
        ("./no-folder", {}, "model-error", "no folder"),
        ("tiny/bert", {"push": "nobody/x"}, "forbidden", "only under"),
    ],
)
def test_what_the_hub_refuses_is_told_with_what_mends_it(model, arguments, kind, says, logged_in, reviews, tmp_path, tiny_model):
    config = (tiny_model("bert") / "config.json").read_bytes()
    logged_in.add_model("tiny/gated", tiny_model("bert"), gated=True)
    logged_in.add_model("else/private", tiny_model("bert"), private=True)
    logged_in.add_model("tiny/pickle", {"config.json": config, "pytorch_model.bin": b"never loaded"})
    with pytest.raises(hubtune.HubtuneError, match=says) as refused:
        hubtune.train("sentiment", model=model, data=reviews, out=tmp_path / "run", **arguments)
    assert refused.value.kind == kind
    assert refused.value.hint or kind == "not-found"
    assert not (tmp_path / "run").exists()


def test_a_token_that_may_only_read_is_refused_before_anything_is_fetched(hub, reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.add_token("me", "read"))
    before = len(hub.requests)
    with pytest.raises(hubtune.HubtuneError, match="is read-only") as refused:
        hubtune.train("sentiment", model="tiny/bert", data=reviews, push="me/x", out=tmp_path / "run")
    assert refused.value.kind == "forbidden"
    assert not [served for served in hub.requests[before:] if "/resolve/" in served.path]


def test_no_token_and_a_wrong_token_are_told_apart(hub, reviews, tmp_path, monkeypatch):
    with pytest.raises(hubtune.HubtuneError, match="there is none") as refused:
        hubtune.train("sentiment", model="tiny/bert", data=reviews, push="me/x", out=tmp_path / "run")
    assert (refused.value.kind, "hf auth login" in refused.value.hint) == ("bad-token", True)
    monkeypatch.setenv("HF_TOKEN", "hf_nonsense")
    with pytest.raises(hubtune.HubtuneError, match="does not accept") as refused:
        hubtune.train("sentiment", model="tiny/bert", data=reviews, out=tmp_path / "run")
    assert refused.value.kind == "bad-token"
    assert "hf_nonsense" not in str(refused.value)


def test_check_says_what_would_happen_and_fetches_no_weights(hub, reviews, tmp_path, tiny_model):
    hub.add_model("tiny/only-checked", tiny_model("distilbert"))
    before = len(hub.requests)
    found = hubtune.check("sentiment", model="tiny/only-checked", data=reviews, out=tmp_path / "run")
    assert found["plan"]["steps"] > 0
    assert found["facts"]["labels"] == ["negative", "neutral", "positive"]
    asked = [s.status for s in hub.requests[before:] if s.method == "GET" and "safetensors" in s.path]
    assert set(asked) <= {206, 302, 307}  # the header alone, in a range of bytes
    assert try_to_load_from_cache("tiny/only-checked", "model.safetensors") is None
    assert not (tmp_path / "run").exists()


def test_a_hub_data_set_is_pinned_to_its_commit(hub, reviews, tmp_path):
    commit = hub.add_dataset("tiny/reviews", {"train.csv": reviews.read_bytes()})
    run = hubtune.train("sentiment", model="tiny/bert", data="tiny/reviews", set=FAST, out=tmp_path / "run")
    assert run.record["data"]["commit"] == commit
    assert run.record["base"]["commit"] == HfApi().model_info("tiny/bert").sha


def test_search_and_show(hub, tiny_model):
    assert [found["id"] for found in hubtune.search("minilm")] == ["sentence-transformers/all-MiniLM-L6-v2"]
    shown = hubtune.show("sentence-transformers/all-MiniLM-L6-v2")
    assert set(shown) == {
        "model", "commit", "architectures", "model_type", "parameters", "dtype", "weights", "license", "gated",
        "private", "pipeline_tag", "labels", "tasks", "strategies", "memory", "adapter",
    }
    assert shown["memory"]["train_all"] == 16 * shown["parameters"]
    assert (shown["license"], shown["parameters"], shown["model_type"]) == ("apache-2.0", 22713728, "bert")
    assert {found["name"]: found["fits"] for found in shown["tasks"]}["sentiment"]


def test_offline_works_from_the_cache(hub, reviews, tmp_path):
    """In a process of its own, as the client reads its environment once."""
    import os

    hubtune.train("sentiment", model="tiny/bert", data=reviews, set=FAST, out=tmp_path / "first")
    before = len(hub.requests)
    command = [sys.executable, "-m", "hubtune", "train", "sentiment", "--model", "tiny/bert", "--data", str(reviews),
               "--set", "data.limit=60", "--set", "train.epochs=1", "--set", "train.verify=false", "--json"]
    done = subprocess.run([*command, "--out", str(tmp_path / "second")], capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert len(hub.requests) == before
    assert json.loads(done.stdout)["base"]["commit"] == HfApi().model_info("tiny/bert").sha


def test_a_failed_push_after_training_keeps_the_run_and_the_command_that_goes_on_publishes(
    logged_in, reviews, tmp_path, tiny_model, monkeypatch
):
    lines = []
    told = hubtune.Callbacks()
    told.on_info = lines.append
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)
    out = tmp_path / "my run"
    logged_in.fail_next("POST", r"/commit/", status=503, times=None)
    with pytest.raises(hubtune.HubError) as caught:
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, out=out, push="me/pushed-later", set=FAST, callbacks=told)
    assert any(line.startswith(f"The run is finished: {out} (accuracy ") for line in lines)
    command = f"hubtune publish '{out}' me/pushed-later"
    assert caught.value.hint.endswith(f"The run is kept in {out}. Publish it with: {command}")
    logged_in.heal()
    run = hubtune.resume(out)
    assert run.record["state"] == "published"
    assert HfApi().model_info("me/pushed-later").sha == run.record["published"]["commit"]
    with pytest.raises(hubtune.ResumeError, match="already published"):
        hubtune.resume(out)


def test_a_signal_outside_the_steps_says_how_to_go_on(reviews, tmp_path, tiny_model, monkeypatch, capsys):
    def interrupt(*given, **named):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("hubtune.runs.stages.scoring.evaluate", interrupt)
    out = tmp_path / "run"
    sets = [part for key, value in FAST.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    status = commands.main(["train", "sentiment", "--model", str(tiny_model("bert")), "--data", str(reviews), "--out", str(out), *sets])
    assert status == 128 + signal.SIGTERM
    assert capsys.readouterr().err.endswith(f"stopped by SIGTERM\nGo on with: hubtune train --resume {out}\n")
    monkeypatch.undo()
    assert hubtune.resume(out).metrics
