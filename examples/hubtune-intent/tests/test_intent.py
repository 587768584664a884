"""The conformance kit on the task, with out of scope as a label and by a threshold; and what is special about it."""

import pytest
from hubtune_intent import IntentRecognition

from hubtune import Batch, DataError
from hubtune.testing import TaskConformance

SAMPLES = (
    ("what is left on my account", "balance"), ("how much money do i have", "balance"), ("show me my balance", "balance"),
    ("send forty euros to anna", "transfer"), ("pay my rent to the landlord", "transfer"), ("wire ten to my brother", "transfer"),
    ("i lost my card in the bus", "block card"), ("my card was stolen, stop it", "block card"), ("freeze the card now", "block card"),
    ("who won the game last night", "oos"), ("tell me how whales sleep", "oos"), ("is it going to rain", "oos"),
)


class TestIntentRecognition(TaskConformance):
    plugin = IntentRecognition
    model = "bert"

    def sample(self, task, count):
        pairs = (SAMPLES[n * 5 % len(SAMPLES)] for n in range(count))
        return [{"text": f"{text}, {'please ' * (n % 5)}thanks", "label": label} for n, (text, label) in enumerate(pairs)]

    def gold(self, task, row, base):
        probabilities = {label: float(label == row["label"]) for label in base.config.label2id}
        return {"intent": row["label"], "probability": 1.0, "probabilities": probabilities}


def splits(train, validation=("balance", "oos")):
    return {split: [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)]
            for split, labels in (("train", train), ("validation", validation))}


def test_out_of_scope_is_a_label_only_where_train_has_it():
    task = IntentRecognition()
    assert task.validate_data(splits(["balance", "transfer", "oos"])) == {
        "intents": ["balance", "oos", "transfer"], "oos_is_learnt": True}
    assert task.validate_data(splits(["balance", "transfer"])) == {"intents": ["balance", "transfer"], "oos_is_learnt": False}


def test_an_intent_that_train_never_shows_is_refused():
    with pytest.raises(DataError, match="'stocks' in row 1 of validation"):
        IntentRecognition().validate_data(splits(["balance", "transfer"], ["stocks"]))


class Base:
    """As much of a `hubtune.Base` as an answer needs."""

    class config:
        id2label = {0: "balance", 1: "transfer"}
        label2id = {"balance": 0, "transfer": 1}


def answered(threshold, *logits):
    import torch

    class outputs:
        pass

    outputs.logits = torch.tensor(logits)
    task = IntentRecognition(IntentRecognition.Options(threshold=threshold))
    return [answer["intent"] for answer in task.postprocess(outputs, Batch({}, None, len(logits)), Base)]


def test_an_answer_below_the_threshold_is_out_of_scope():
    assert answered(0.8, [2.0, 0.0], [0.5, 0.0]) == ["balance", "oos"]
    assert answered(0.0, [2.0, 0.0], [0.5, 0.0]) == ["balance", "balance"]
