"""Text classification: one label, several labels or a number per text, or per pair of texts."""

from collections import Counter
from dataclasses import dataclass

from hubtune import Batch, Column, DataError, Loss, Metric, Setup, Task, hookimpl, label_space, option, row_numbers
from hubtune_text.scores import class_scores, class_table, number_scores, several_scores
from hubtune_text.texts import pad, pad_token, tokenise

PROBLEMS = {"one": "single_label_classification", "several": "multi_label_classification", "number": "regression"}
KINDS = {problem: kind for kind, problem in PROBLEMS.items()}
METRICS = {"one": "accuracy", "several": "f1_micro", "number": "pearson"}


@dataclass(frozen=True)
class ClassificationOptions:
    kind: str = option("auto", "what a label is: one of a few, several, or a number",
                       choices=("auto", "one", "several", "number"))
    separator: str = option("|", "what stands between several labels in one cell")
    class_weights: str = option("none", "balanced: rare labels weigh more in the loss", choices=("none", "balanced"))
    metric: str = option("auto", "what decides which weights are best", choices=(
        "auto", "accuracy", "f1_macro", "f1_weighted", "f1_micro", "pearson", "spearman", "mae", "rmse"))
    threshold: float = option(0.5, "with several labels: the probability from which a label is given")


class TextClassification(Task[ClassificationOptions]):
    """One label per text, several labels, or a number; of one text or of two."""

    contract = 1
    name = "text-classification"
    summary = "a label, several labels or a number for a text or a pair of texts"
    model = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    metric = Metric("accuracy")
    Options = ClassificationOptions
    columns = (
        Column("text", ("text", "sentence", "sentence1", "text1", "premise", "question1", "review", "content", "comment",
                        "tweet", "message", "sms", "body", "utterance", "query", "question", "document", "title")),
        Column("text_pair", ("text_pair", "sentence2", "text2", "hypothesis", "question2"), needed="never"),
        Column("label", ("label", "labels", "class", "category", "intent", "target", "score", "rating", "stars",
                         "sentiment", "label_name", "y"), kind="label", needed="train"),
    )

    def inspect(self, splits):
        values = {split: [row["label"] for row in rows] for split, rows in splits.items()}
        kind = self.options.kind if self.options.kind != "auto" else kind_of(values["train"])
        if kind == "number":
            for split, found in values.items():
                numbers(found, split)
            return {"kind": kind}
        raw = {split: [self.raw_labels(value, kind) for value in found] for split, found in values.items()}
        labels = label_space(raw)
        names = self.names_of(labels)
        ordered = list(dict.fromkeys(names[label] for label in labels))
        counts = Counter(names[label] for row in raw["train"] for label in row)
        return {"kind": kind, "labels": ordered, "names": names, "counts": {name: counts[name] for name in ordered}}

    def raw_labels(self, value, kind):
        """The labels of a cell, as strings."""
        if kind == "several":
            parts = value if isinstance(value, list) else str(value).split(self.options.separator)
            return [text for part in parts if (text := written(part))]
        return [written(value)]

    def names_of(self, labels):
        """What each raw label is called; the order is the model's."""
        return {label: label for label in labels}

    def configure(self, facts, base):
        extras = pad_token(base)
        kind = facts.get("kind") or KINDS.get(getattr(base.config, "problem_type", None) or "", "one")
        extras["problem_type"] = PROBLEMS[kind]
        labels = facts.get("labels") or (["LABEL_0"] if kind == "number" else list(base.config.id2label.values()))
        self.names = facts.get("names", {})
        old = list(getattr(base.config, "id2label", {}).values())
        if set(old) == set(labels):
            labels = old  # a head that is trained already keeps its order
        self.weights = None
        if self.options.class_weights == "balanced" and facts.get("counts"):
            counts = [facts["counts"][label] for label in labels]
            self.weights = [sum(counts) / (len(counts) * count) for count in counts]
        extras["num_labels"] = len(labels)
        extras["id2label"] = dict(enumerate(labels))
        extras["label2id"] = {label: index for index, label in enumerate(labels)}
        return Setup(extras, base.processor)

    def kind_in(self, base):
        return KINDS[base.config.problem_type]

    def metric_of(self, base):
        name = METRICS[self.kind_in(base)] if self.options.metric == "auto" else self.options.metric
        return Metric(name, higher_is_better=name not in ("mae", "rmse"))

    def encode(self, rows, base):
        texts = [row["text"] for row in rows]
        pairs = [row["text_pair"] for row in rows] if texts and "text_pair" in rows[0] else None
        for row, example in zip(rows, tokenise(base, texts, pairs) if texts else (), strict=True):
            if row.get("label") is not None:
                example["target"] = self.target(row["label"], base)
            yield [example]

    def ids_of(self, value, base):
        """The ids of a row's labels."""
        known = base.config.label2id
        names = [self.names.get(label, label) for label in self.raw_labels(value, self.kind_in(base))]
        strange = [name for name in names if name not in known]
        if strange:
            raise DataError(f"the label {strange[0]!r} is none of the model's: {', '.join(map(repr, known))}.")
        return [known[name] for name in names]

    def target(self, value, base):
        kind = self.kind_in(base)
        if kind == "number":
            return float(value)
        ids = self.ids_of(value, base)
        return ids[0] if kind == "one" else [float(index in ids) for index in range(len(base.config.label2id))]

    def size(self, example):
        return len(example["input_ids"])

    def collate(self, examples, base, draws):
        import torch

        targets = None
        if all("target" in example for example in examples):
            targets = torch.tensor([example["target"] for example in examples])
        return Batch(pad(base, examples), targets, len(examples))

    def weights_of(self, targets):
        """The weight of each row: of its label, where labels are weighted."""
        if self.weights is None or targets.is_floating_point():
            return [1.0] * len(targets)
        return [self.weights[target] for target in targets.tolist()]

    def count(self, batch):
        return {"loss": sum(self.weights_of(batch.targets))}

    def loss(self, outputs, batch):
        import torch
        from torch.nn import functional as F

        logits, targets = outputs.logits.to(dtype=max_precision(outputs.logits)), batch.targets
        weights = self.weights_of(targets)
        if not targets.is_floating_point():
            each = F.cross_entropy(logits, targets, reduction="none")
        elif targets.ndim == 2:
            each = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none").mean(1)
        else:
            each = F.mse_loss(logits.squeeze(-1), targets.to(logits.dtype), reduction="none")
        return Loss((each * torch.tensor(weights, dtype=each.dtype, device=each.device)).sum(), sum(weights))

    def judge(self, outputs, batch, base):
        logits, kind = outputs.logits.to(dtype=max_precision(outputs.logits)), self.kind_in(base)
        if kind == "number":
            return [{"value": value} for value in logits.squeeze(-1).tolist()]
        names = [base.config.id2label[index] for index in range(logits.shape[-1])]
        rows = (logits.softmax(-1) if kind == "one" else logits.sigmoid()).tolist()
        return [self.prediction(dict(zip(names, row, strict=True)), kind) for row in rows]

    def prediction(self, probabilities, kind):
        if kind == "several":
            given = [name for name, value in probabilities.items() if value >= self.options.threshold]
            return {"labels": given, "probabilities": probabilities}
        best = max(probabilities, key=probabilities.__getitem__)
        return {"label": best, "probability": probabilities[best], "probabilities": probabilities}

    def score(self, predictions, rows, base):
        kind = self.kind_in(base)
        if kind == "number":
            return number_scores([float(row["label"]) for row in rows], [p["value"] for p in predictions])
        ids = base.config.label2id
        gold = [self.ids_of(row["label"], base) for row in rows]
        if kind == "several":
            return several_scores(gold, [[ids[name] for name in p["labels"]] for p in predictions], len(ids))
        return class_scores([g[0] for g in gold], [ids[p["label"]] for p in predictions], len(ids))

    def report(self, predictions, rows, base):
        if self.kind_in(base) == "number":
            return {}
        ids = base.config.label2id
        gold = [self.ids_of(row["label"], base) for row in rows]
        found = [[ids[name] for name in (p["labels"] if "labels" in p else [p["label"]])] for p in predictions]
        return class_table(gold, found, [base.config.id2label[i] for i in range(len(ids))], self.kind_in(base))

    def usage(self, repo, base):
        return super().usage(repo, base).replace('day")', 'day", truncation=True)')

    def sample(self, count):
        """Texts whose one telling word says the label: in the kind that the options ask for."""
        groups = (("negative", "awful"), ("positive", "lovely"), ("neutral", "square"))
        things = ("film", "room", "soup", "walk", "chair")
        rows = []
        for index in range(count):
            name, word = groups[index % 3]
            label = {"several": [name, "long"] if index % 2 else [name], "number": index % 3 - 0.5}.get(self.options.kind, name)
            rows.append({"text": f"{'What can one say, ' if index % 2 else ''}a {word} {things[index % 5]}", "label": label})
        return rows

    def gold(self, row, base):
        kind = self.kind_in(base)
        if kind == "number":
            return {"value": float(row["label"])}
        ids = self.ids_of(row["label"], base)
        given = {name: float(index in ids) for name, index in base.config.label2id.items()}
        return self.prediction(given, kind)


def written(value):
    """A raw label as a string: 1 and 1.0 are "1", true is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def kind_of(values):
    """Lists are several labels; numbers with a decimal point are a number; all else is one label."""
    if any(isinstance(value, list) for value in values):
        return "several"
    if all(isinstance(value, float) or (isinstance(value, str) and "." in value) for value in values):
        try:
            numbers(values, "train")
            return "number"
        except DataError:
            return "one"
    return "one"


def numbers(values, split):
    """The values as floats, or an error with the rows that are none."""
    import math

    def read(value):
        try:
            return float(value)
        except (TypeError, ValueError):
            return math.nan

    found = [read(value) for value in values]
    bad = [index for index, value in enumerate(found) if not math.isfinite(value)]
    if bad:
        raise DataError(f"{values[bad[0]]!r} is not a number: {row_numbers(bad)} of {split}.",
                        hint="For labels instead: --set task.kind=one")
    return found


def max_precision(tensor):
    """fp32, or fp64 where the model computes in it: a loss in half precision loses small differences."""
    import torch

    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@hookimpl
def hubtune_tasks():
    return [TextClassification]
