"""Intent recognition: what somebody wants of an assistant, and `oos` (out of scope) where it is none of the known wishes.

After Larson et al., An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction, arXiv:1909.02027.
"""

from dataclasses import dataclass

from hubtune import (
    Batch,
    Column,
    DataError,
    Loss,
    Metric,
    ModelSetup,
    Task,
    hookimpl,
    label_id,
    label_space,
    option,
    row_numbers,
)


@dataclass(frozen=True)
class IntentOptions:
    oos: str = option("oos", "what rows and answers outside all intents are called")
    threshold: float | None = option(
        None, "answer oos where the best probability is below this; none: 0.5, or never where train has oos rows")
    metric: str = option("accuracy", "what decides which weights are best", choices=("accuracy", "f1_macro"))


class IntentRecognition(Task[IntentOptions]):
    """The intent of an utterance; out of scope by a label that is learnt, or where the model is not sure."""

    contract = 2
    name = "intent-recognition"
    summary = "what an utterance asks for, or that it is out of scope"
    model = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    metric = Metric("accuracy")
    shares = ("accuracy",)
    Options = IntentOptions
    columns = (
        Column("text", ("text", "utterance", "query", "sentence", "message")),
        Column("label", ("intent", "label", "labels", "category"), kind="label", needed="train"),
    )

    def validate_data(self, splits):
        train = splits["train"]
        wrong = [index for index, row in enumerate(train) if not str(row["label"]).strip()]
        if wrong:
            raise DataError(f"an intent without a name: {row_numbers(wrong, train)} of train.",
                            hint=f"Call what belongs to no intent {self.options.oos!r}.")
        labels = {split: [[str(row["label"])] for row in rows] for split, rows in splits.items()}
        learnt = any(found == [self.options.oos] for found in labels["train"])
        if not learnt:  # then it is no label of the model, but rows to evaluate may have it
            labels = {split: [found for found in rows if found != [self.options.oos]] for split, rows in labels.items()}
        return {"intents": label_space(labels), "oos_is_learnt": learnt}

    def model_config(self, dataset_info, base):
        pad = base.processor.pad_token or base.processor.eos_token  # most decoders have none; attention masks it
        labels = dataset_info.get("intents") or list(base.config.id2label.values())
        return ModelSetup({
            "problem_type": "single_label_classification", "num_labels": len(labels),
            "id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)},
            "pad_token_id": base.processor.convert_tokens_to_ids(pad),
        }, tokenizer={"pad_token": pad})

    def select_metric(self, base):
        return Metric(self.options.metric)

    def least(self, base):
        """The probability below which the answer is oos."""
        if self.options.threshold is not None:
            return self.options.threshold
        return 0.0 if self.options.oos in base.config.label2id else 0.5

    def encode(self, rows, base):
        texts = [row["text"] for row in rows]
        encoded = base.processor(texts, truncation=base.max_length is not None, max_length=base.max_length, verbose=False)
        for index, row in enumerate(rows):
            target = None if row.get("label") is None else self.target(str(row["label"]), base.config)
            yield [{"inputs": {name: values[index] for name, values in encoded.items()}, "target": target}]

    def target(self, label, config):
        """The id of a label; -100 for an oos row where oos is not learnt: it is evaluated, and has no part in the loss."""
        return -100 if label == self.options.oos and label not in config.label2id else label_id(label, config)

    def num_tokens(self, example):
        return len(example["inputs"]["input_ids"])

    def collate(self, examples, base, rngs):
        import torch

        inputs = base.processor.pad([e["inputs"] for e in examples], padding_side="right", return_tensors="pt", verbose=False)
        targets = [e["target"] for e in examples]
        if None in targets:
            return Batch(dict(inputs), None, len(examples))
        counts = {"loss": float(sum(target != -100 for target in targets))}
        return Batch(dict(inputs), torch.tensor(targets), len(examples), counts)

    def loss(self, outputs, batch):
        from torch.nn.functional import cross_entropy

        total = cross_entropy(outputs.logits, batch.targets, reduction="sum", ignore_index=-100)
        return Loss(total)

    def postprocess(self, outputs, batch, base):
        answers = []
        for row in outputs.logits.softmax(-1).tolist():
            probabilities = {base.config.id2label[index]: value for index, value in enumerate(row)}
            best = max(probabilities, key=probabilities.__getitem__)
            intent = best if probabilities[best] >= self.least(base) else self.options.oos
            answers.append({"intent": intent, "probability": probabilities[best], "probabilities": probabilities})
        return answers

    def score(self, predictions, rows, base):
        from sklearn.metrics import accuracy_score, f1_score

        gold, found = [str(row["label"]) for row in rows], [p["intent"] for p in predictions]
        scores = {"accuracy": float(accuracy_score(gold, found)),
                  "f1_macro": float(f1_score(gold, found, average="macro", zero_division=0.0))}
        outside = [f == self.options.oos for g, f in zip(gold, found, strict=True) if g == self.options.oos]
        return scores | ({"oos_recall": sum(outside) / len(outside)} if outside else {})


@hookimpl
def hubtune_tasks():
    return [IntentRecognition]
