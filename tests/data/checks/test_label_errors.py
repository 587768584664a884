"""Likely wrong labels: those that were put in are found, with their rows and lines, and copies do not confirm them."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hubtune
from hubtune.cli import commands
from hubtune.data.checks import label_errors
from hubtune.errors import DataError, MissingExtra, RecipeError

pytest.importorskip("cleanlab", reason="cleanlab comes with: pip install 'hubtune[labels]'")

WORDS = {"food": ["soup", "bread", "cheese", "apple", "rice", "salt"], "cars": ["wheel", "motor", "brake", "tyre", "clutch", "road"],
         "music": ["song", "guitar", "drum", "tune", "choir", "piano"]}
TOPICS = list(WORDS)
FLIPPED = {row: TOPICS[(row + 1) % 3] for row in range(4, 240, 10)}
"""Rows, from 0, and the wrong label that each gets: the next topic's."""


def rows() -> list[dict[str, str]]:
    """Rows of three topics, some with a wrong label."""
    draw = random.Random(0)
    topics = [TOPICS[n % 3] for n in range(240)]
    texts = [" ".join(draw.choices(WORDS[topic], k=6)) + f" {n}" for n, topic in enumerate(topics)]
    return [{"text": text, "label": FLIPPED.get(n, topic)} for n, (text, topic) in enumerate(zip(texts, topics, strict=True))]


def report(data: Any, **more: Any) -> dict[str, Any]:
    return hubtune.data_report("text-classification", data=data, label_errors=True, **more)


def test_wrong_labels_are_found_with_rows_lines_and_the_likely_label(tmp_path: Path) -> None:
    path = tmp_path / "topics.csv"
    path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows()), encoding="utf-8")
    found = report(str(path))
    errors = found["label_errors"]
    wrong = [one for one in errors["found"] if one["row"] - 1 in FLIPPED]
    assert len(wrong) >= 0.8 * len(FLIPPED)
    assert len(errors["found"]) <= 1.2 * len(FLIPPED)
    assert all(one["line"] == one["row"] + 1 for one in errors["found"])
    assert all((one["given"], one["likely"]) == (FLIPPED[one["row"] - 1], TOPICS[(one["row"] - 1) % 3]) for one in wrong)
    assert [one["given_confidence"] for one in errors["found"]] == sorted(one["given_confidence"] for one in errors["found"])
    assert (errors["judged"], errors["not_judged"]) == (240, 0)
    assert "TF-IDF" in errors["method"]
    one = wrong[0]
    assert any(f"train row {one['row']} (line {one['line']}): {one['given']!r} is likely {one['likely']!r}" in line for line in found["text"])
    assert any(line.startswith(f"likely wrong labels: {len(errors['found'])} of 240 rows") for line in found["text"])
    assert not found["refused"]


def test_a_model_gives_the_features(tiny_model: Any, tmp_path: Path) -> None:
    errors = report(rows(), model=tiny_model("bert"))["label_errors"]
    assert "mean features of" in errors["method"]
    assert errors["judged"] == 240
    assert all(one["line"] is None for one in errors["found"])


def test_copies_are_held_out_together_so_that_they_cannot_confirm_each_other() -> None:
    inputs = np.repeat(np.arange(40), 2)
    targets = np.repeat(np.arange(40) % 2, 2)
    cut = label_errors.folds(targets, inputs, seed=0)
    assert sorted(np.concatenate([asked for _, asked in cut]).tolist()) == list(range(80))
    assert all(not set(inputs[fitted]) & set(inputs[asked]) for fitted, asked in cut)
    assert all(set(targets[asked]) == {0, 1} for _, asked in cut)


def test_labels_with_few_rows_are_not_judged_and_counted() -> None:
    errors = report([*rows(), *({"text": f"odd thing {n}", "label": "rare"} for n in range(4))])["label_errors"]
    assert (errors["judged"], errors["not_judged"]) == (240, 4)
    assert all("rare" not in (one["given"], one["likely"]) for one in errors["found"])
    with pytest.raises(DataError, match="from 2 labels with 5 different inputs each; the data has 1"):
        report([{"text": f"a {n}", "label": "x"} for n in range(30)] + [{"text": f"b {n}", "label": "y"} for n in range(3)])


def test_the_text_names_some_and_json_has_all() -> None:
    found = tuple(label_errors.Suspect("train", row, None, "a", "b", 0.9, 0.01) for row in range(1, 26))
    errors = label_errors.LabelErrors("m", 100, 3, found)
    lines = errors.lines()
    assert lines[0] == "likely wrong labels: 25 of 100 rows, by m; 3 rows of labels with fewer than 5 different inputs were not judged"
    assert len(lines) == 1 + label_errors.SHOWN + 1
    assert lines[-1] == "  and 5 more, which --json lists"
    assert len(errors.as_json()["found"]) == 25


def labelled_several_times() -> tuple[list[dict[str, Any]], dict[int, list[str]]]:
    """Rows about none to three topics, and the right labels of those that lack one or have one too many."""
    draw, made, right = random.Random(0), list[dict[str, Any]](), dict[int, list[str]]()
    for n in range(400):
        topics = [topic for topic in TOPICS if draw.random() < 0.4]
        words = [word for topic in topics for word in draw.choices(WORDS[topic], k=4)] + draw.choices(["and", "so", "then"], k=3)
        given = list(topics)
        if n % 20 == 7:
            right[n], topic = topics, TOPICS[n % 3]
            given = [one for one in topics if one != topic] if topic in topics else [*topics, topic]
        made.append({"text": " ".join(words) + f" {n}", "label": given})
    return made, right


def test_of_several_labels_per_row_wrong_and_missing_ones_are_found(tmp_path: Path) -> None:
    made, right = labelled_several_times()
    errors = report(made)["label_errors"]
    assert (errors["judged"], errors["not_judged"]) == (400, 0)
    found = {(one["row"] - 1, one["given"], one["likely"]) for one in errors["found"]}
    wanted = {(n, *((topic, None) if topic in made[n]["label"] else (None, topic)))
              for n, labels in right.items() for topic in TOPICS if (topic in made[n]["label"]) != (topic in labels)}
    assert len(wanted) == 20
    assert len(found & wanted) >= 18
    assert len(found) <= 24
    assert [one["given_confidence"] for one in errors["found"]] == sorted(one["given_confidence"] for one in errors["found"])
    assert all(one["confidence"] == pytest.approx(1 - one["given_confidence"], abs=2e-4) for one in errors["found"])
    text = "\n".join(report(made)["text"])
    assert f"likely wrong labels: {len({row for row, *_ in found})} of 400 rows" in text
    assert "is likely missing (" in text
    assert "is likely wrong (" in text


def test_folds_do_not_depend_on_the_values_of_hashes() -> None:
    """Python's hashes of texts differ from process to process."""
    targets = np.arange(40) % 2
    inputs = np.arange(40) // 2  # each input twice
    hashes = np.random.default_rng(0).permutation(20)[inputs]
    for one, other in zip(label_errors.folds(targets, inputs, 0), label_errors.folds(targets, hashes, 0), strict=True):
        assert [part.tolist() for part in one] == [part.tolist() for part in other]
        assert not set(inputs[one[0]]) & set(inputs[one[1]])


def test_of_several_labels_rare_ones_are_left_out_and_the_rest_of_their_rows_is_judged() -> None:
    made, _ = labelled_several_times()
    for n in range(4):
        made[n]["label"] = [*made[n]["label"], "rare"]
    errors = report(made)["label_errors"]
    assert (errors["judged"], errors["not_judged"]) == (400, 4)
    assert all("rare" not in (one["given"], one["likely"]) for one in errors["found"])
    with pytest.raises(DataError, match="a label that 5 different inputs have and 5 have not"):
        report([{"text": f"t {n}", "label": ["a"] if n < 28 else ["a", "b"]} for n in range(30)])


def test_data_without_labels_of_rows_is_refused() -> None:
    with pytest.raises(RecipeError, match="tells none of the rows of train: they are numbers"):
        report([{"text": f"t {n}", "label": n / 7} for n in range(30)])
    with pytest.raises(RecipeError, match="'fill-mask' has none"):
        hubtune.data_report("fill-mask", data=[{"text": f"some text {n}"} for n in range(20)], label_errors=True)


def test_without_cleanlab_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "cleanlab" else find(name, *rest))
    with pytest.raises(MissingExtra) as caught:
        report(rows())
    assert caught.value.hint == "pip install 'hubtune[labels]'"
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,b\n", encoding="utf-8")
    assert commands.main(["check", str(path), "--task", "text-classification", "--label-errors"]) == 1
    assert "hubtune[labels]" in capsys.readouterr().err
