"""The card, from a record made by hand: metadata that the Hub reads, and nothing that was not seen or is private."""

from __future__ import annotations

import ast
import copy
import re
import tomllib
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from hubtune.defaults import resolve
from hubtune.hub import card
from hubtune.recipe import DataConfig, PluginChoice, Recipe, TrainConfig, build

COMMIT, HASH = "c" * 40, "f" * 64
RECIPE = Recipe(
    PluginChoice("sentiment", {"class_weights": "balanced"}), "/home/ann/models/secret-base",
    DataConfig("/home/ann/data/reviews.csv", "/home/ann/data/dev.csv", None, {"text": "body"}), PluginChoice("lora", {"rank": 8}),
    train=TrainConfig(epochs=2.0),
)


def test_card_names_the_plugin_of_a_task() -> None:
    record = local()
    assert "; of " not in card.render(record)
    record["plugins"] = {"task": {"plugin": "stars", "distribution": "hubtune-stars", "version": "0.2"},
                         "strategy": {"plugin": "lora", "distribution": "hubtune", "version": "0.1.0"}}
    assert "| task | sentiment (negative, neutral or positive; of hubtune-stars 0.2) |" in card.render(record)


def local() -> dict[str, Any]:
    """A run from a local model and a local file."""
    return copy.deepcopy({
        "name": "sentiment-secret-base-lora-1", "recipe": RECIPE.as_dict(),
        "task": {"name": "sentiment", "summary": "negative, neutral or positive", "pipeline_tag": "text-classification",
                 "model": "AutoModelForSequenceClassification", "metric": "accuracy"},
        "strategy": {"name": "lora", "summary": "low-rank updates", "paper": "arXiv:2106.09685"},
        "base": {"repo": "secret-base", "commit": f"sha256:{HASH}", "local": True, "license": None, "language": None,
                 "license_name": None, "license_link": None, "gated": False, "private": False},
        "data": {"name": "reviews.csv", "fingerprint": HASH, "repo": None, "commit": None,
                 "columns": {"text": "body", "label": "label"}, "rows": {"train": 432, "validation": 48}, "checks": {}},
        "usage": 'from transformers import pipeline\n\npipe = pipeline("text-classification", model="NAMESPACE/NAME")\n'
                 'print(pipe("What a lovely day"))', "config": {"num_labels": 3},
        "facts": {"kind": "single_label", "labels": ["negative", "neutral", "positive"]},
        "settings": dict(vars(resolve(RECIPE.train, {"train.learning_rate": 2e-4}, 432, 22_000_000))),
        "lengths": {"max_length": 64, "limit": 512, "longest": 60, "median": 20, "rows": 432, "rows_cut": 0,
                    "tokens": 9000, "tokens_cut": 0},
        "parameters": {"total": 22_000_000, "trainable": 300_000}, "compute": {"precision": "fp32"},
        "metrics": {"validation": {"accuracy": 0.875, "f1_macro": 0.8612345678}},
        "intervals": {"validation": {"accuracy": [0.77, 0.96], "f1_macro": [0.75, 0.95]}},
        "warnings": [], "steps": 54, "epochs": 2.0, "seconds": 12.3, "loads_with": "transformers",
        "base_model_relation": "finetune", "proof": {"examples": 48, "largest_difference": 2.4e-7},
        "versions": {"python": "3.11", "hubtune": "0.1.0", "torch": "2.13"},
    })


def hub() -> dict[str, Any]:
    """A run from a model and a data set of the Hub."""
    record = local()
    record["base"] |= {"repo": "org/base", "commit": COMMIT, "local": False, "license": "apache-2.0", "language": ["en", "de"]}
    record["data"] |= {"name": "org/reviews:plain", "repo": "org/reviews", "commit": "d" * 40,
                       "rows": {"train": 432, "validation": 48, "test": 100}}
    record["metrics"]["test"] = {"accuracy": 0.85, "f1_macro": 0.84}
    record["intervals"]["test"] = {"accuracy": [0.78, 0.91], "f1_macro": [0.77, 0.9]}
    record["recipe"]["model"]["id"], record["recipe"]["data"]["source"] = "org/base@main", "org/reviews:plain"
    return record


def parts(text: str) -> tuple[dict[str, Any], str]:
    """The metadata and the rest of a card."""
    start, front, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), body


def block(text: str, language: str) -> str:
    return text.split(f"```{language}\n")[1].split("```")[0]


@pytest.mark.parametrize("record", [local(), hub()], ids=["local", "hub"])
@pytest.mark.parametrize("repo", [None, "me/my-model"])
def test_metadata_is_valid_for_the_hub(record: dict[str, Any], repo: str | None) -> None:
    text = card.render(record, repo)
    data = ModelCard(text).data
    front, body = parts(text)
    assert data.pipeline_tag == "text-classification"
    assert data.library_name == "transformers"
    assert data.tags == ["hubtune", "sentiment", "lora"]
    assert front["model-index"][0]["name"] == ("my-model" if repo else "sentiment-secret-base-lora-1")
    assert body.startswith(f"# {'my-model' if repo else 'sentiment-secret-base-lora-1'}\n")
    assert text.endswith("\n")
    assert None not in front.values()


def test_model_index_has_results_by_split() -> None:
    front, _ = parts(card.render(hub()))
    found = {
        (result["dataset"]["split"], metric["type"]): metric["value"]
        for result in front["model-index"][0]["results"] for metric in result["metrics"]
    }
    assert found == {("validation", "accuracy"): 0.875, ("validation", "f1_macro"): 0.861235, ("test", "accuracy"): 0.85,
                     ("test", "f1_macro"): 0.84}
    assert {result["dataset"]["type"] for result in front["model-index"][0]["results"]} == {"org/reviews"}
    assert front["datasets"] == ["org/reviews"]
    assert front["metrics"] == ["accuracy", "f1_macro"]


def test_results_have_intervals_and_validation_a_caveat() -> None:
    _, body = parts(card.render(hub()))
    assert "On 100 rows of test:" in body
    assert "On 48 rows of validation (used to choose the weights, so scores are optimistic):" in body
    assert "| accuracy | 0.8500 | 0.7800 to 0.9100 |" in body


def test_hub_base_model_is_named_with_its_commit() -> None:
    front, body = parts(card.render(hub()))
    assert (front["base_model"], front["base_model_relation"]) == ("org/base", "finetune")
    assert (front["license"], front["language"]) == ("apache-2.0", ["en", "de"])
    assert f"https://huggingface.co/org/base/tree/{COMMIT}" in body


def test_local_base_model_is_identified_by_hash_alone() -> None:
    front, body = parts(card.render(local()))
    assert "base_model" not in front
    assert "base_model_relation" not in front
    assert "datasets" not in front
    assert f"`sha256:{HASH}`" in body


def test_unknown_licence_is_a_warning_and_absent_from_metadata() -> None:
    for license in (None, "unknown"):
        record = local()
        record["base"]["license"] = license
        front, body = parts(card.render(record))
        assert "license" not in front
        assert "| licence | **not known**: the base model's card names none." in body


def test_user_licence_and_languages_override_the_base_model() -> None:
    record = hub()
    record["recipe"]["publish"] |= {"license": "mit", "language": ["fr"]}
    front, body = parts(card.render(record))
    assert (front["license"], front["language"]) == ("mit", ["fr"])
    assert "| licence | mit |" in body


def test_custom_licence_keeps_its_name_and_link() -> None:
    record = hub()
    record["base"] |= {"license": "other", "license_name": "theirs", "license_link": "https://example.org/l"}
    front, _ = parts(card.render(record))
    assert (front["license"], front["license_name"], front["license_link"]) == ("other", "theirs", "https://example.org/l")


@pytest.mark.parametrize("record", [local(), hub()], ids=["local", "hub"])
def test_card_has_no_local_path_or_user(record: dict[str, Any]) -> None:
    text = card.render(record, "me/x")
    assert "/home" not in text
    assert "ann" not in text.replace("cannot", "")
    assert "dev.csv" not in text


@pytest.mark.parametrize("record", [local(), hub()], ids=["local", "hub"])
def test_card_recipe_is_complete_and_parses(record: dict[str, Any]) -> None:
    made = build(tomllib.loads(block(card.render(record), "toml")))
    assert vars(made.train) == record["settings"]
    assert made.task == RECIPE.task
    assert made.strategy == RECIPE.strategy
    assert made.data.columns == RECIPE.data.columns
    if record["base"]["local"]:
        assert (made.model, made.data.source) == ("YOUR-COPY-OF-THE-BASE-MODEL", "reviews.csv")
    else:
        assert (made.model, made.data.source) == (f"org/base@{COMMIT}", f"org/reviews:plain@{'d' * 40}")


def test_snippet_is_python_that_names_the_model() -> None:
    for repo in (None, "me/x"):
        code = block(card.render(hub(), repo), "python")
        ast.parse(code)
        assert f'model="{repo or "NAMESPACE/NAME"}"' in code


def test_verification_or_its_absence_is_stated() -> None:
    record = local()
    text = card.render(record)
    assert "compared with the trained model: the same outputs on 48 examples (largest difference 2.4e-07)" in text
    assert "says nothing of how good its answers are: see the results." in text
    assert "rows that were asked" not in text
    record["proof"]["asked"] = {"rows": 12, "ways": ["pipeline"], "largest_difference": 0.0}
    assert "and the same answers on 12 rows that were asked as in the code above" in card.render(record)
    record["proof"] = None
    assert "Its files were not compared with the trained model." in card.render(record)


def test_truncated_rows_and_warnings_are_stated() -> None:
    record = local()
    assert "row was truncated (the longest has 60 tokens)." in card.render(record)
    record["lengths"] |= {"rows_cut": 7, "tokens_cut": 90}
    record["warnings"] = ["7 rows are longer than 64 tokens."]
    text = card.render(record)
    assert re.search(r"7 of 432 (\w+ )?rows were truncated at 64 tokens, which removed 90 of 9000 tokens\.", text)
    assert "\n> 7 rows are longer than 64 tokens.\n" in text


def test_regression_has_no_labels() -> None:
    record = local()
    record["facts"] = {"kind": "regression"}
    assert "Labels:" not in card.render(record)


@pytest.mark.parametrize("name", ["my: data #1.csv", "- [x] {y}.csv", "'quoted\".csv", "größe.csv", "null", "yes"])
def test_metadata_is_valid_for_any_name(name: str) -> None:
    record = local()
    record["data"]["name"] = name
    front, _ = parts(card.render(record))
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == name
    build(tomllib.loads(block(card.render(record), "toml")))


def test_missing_record_values_raise() -> None:
    import jinja2

    record = local()
    del record["steps"]
    with pytest.raises(jinja2.UndefinedError):
        card.render(record)


def test_names_of_others_are_text() -> None:
    """Labels, file names, messages and the recipe add neither headings, images, cells nor code blocks."""
    record = local()
    nasty = "a`b\n# heading\n![](http://example.org/x.png) | <img src=x>"
    record["facts"]["labels"] = [nasty, "b"]
    record["data"]["name"] = f"{nasty}.csv"
    record["warnings"] = [f"the label '{nasty}' is rare"]
    record["score_warnings"] = {"validation": [f"the model answers '{nasty}' for all 48 rows"]}
    record["baselines"] = {"validation": {"accuracy": {"value": 0.5, "answer": nasty}}}
    record["recipe"]["task"]["separator"] = "```\n# heading"
    record["base"]["repo"] = f"folder {nasty}"
    front, body = parts(card.render(record))
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", body, flags=re.MULTILINE | re.DOTALL)
    assert [line for line in outside.splitlines() if line.startswith("#")] == ["# sentiment-secret-base-lora-1", "## Results", "## Use", "## Training"]
    without_code = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", outside)
    assert "![" not in without_code
    assert "<img" not in without_code
    cells = [re.sub(r"\\\|", "", line).count("|") for line in outside.splitlines() if line.startswith("| accuracy")]
    assert cells == [5]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == f"{nasty}.csv"
    assert tomllib.loads(re.search(r"^(`{3,})toml\n(.*?)^\1$", body, re.MULTILINE | re.DOTALL)[2])["task"]["separator"] == "```\n# heading"


def test_a_metric_without_an_interval_says_why() -> None:
    record = local()
    del record["intervals"]["validation"]["f1_macro"]
    record["no_intervals"] = {"validation": {"f1_macro": "4 different rows are too few (at least 10)"}}
    record["metrics"]["validation"]["pearson"] = float("nan")
    front, body = parts(card.render(record))
    assert "| f1_macro | 0.8612 | none: 4 different rows are too few (at least 10) |" in body
    assert [metric["type"] for result in front["model-index"][0]["results"] for metric in result["metrics"]] == ["accuracy", "f1_macro"]
