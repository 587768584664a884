"""Multiple choice: which of a few texts fits best."""

from hubtune import Batch, Column, DataError, Loss, Metric, hookimpl
from hubtune_text import samples, usages
from hubtune_text.choices import choice_logits, refuse_unclear, right, stacked, texts_of
from hubtune_text.texts import TextTask, targets_of, tokenise


class MultipleChoice(TextTask):
    """The model gives each choice a number, beside its question; rows may have different numbers of choices."""

    name = "multiple-choice"
    summary = "which of a few texts continues or answers another"
    model = "AutoModelForMultipleChoice"
    pipeline_tag = "multiple-choice"
    metric = Metric("accuracy")
    columns = (
        Column("question", ("question", "sent2", "prompt", "sentence", "startphrase", "sent1", "query", "ctx", "premise",
                            "goal", "stem", "text")),
        Column("choices", ("choices", "options", "endings", "answers", "candidates", "alternatives"), kind="texts"),
        Column("context", ("context", "passage", "article", "sent1", "paragraph", "story", "support"), needed="never"),
        Column("label", ("label", "answer", "answerkey", "answer_key", "gold", "correct", "target", "labels"), kind="label",
               needed="train"),
    )

    def inspect(self, splits):
        for split, rows in splits.items():
            refuse_unclear(rows, split)
        return {}

    def encode(self, rows, base):
        for row in rows:
            choices, context = texts_of(row["choices"]), row.get("context")
            first = row["question"] if context is None else context
            seconds = choices if context is None else [f"{row['question']} {choice}" for choice in choices]
            example = {"choices": tokenise(base, [first] * len(choices), seconds)}
            if row.get("label") is not None:
                example["target"] = right(row)
                if example["target"] is None:
                    raise DataError(f"the label {row['label']!r} is none of the choices {choices}.")
            yield [example]

    def size(self, example):
        return len(example["choices"]) * self.length(example)

    def length(self, example):
        return max(len(choice["input_ids"]) for choice in example["choices"])

    def collate(self, examples, base, draws):
        return Batch(stacked(base, [example["choices"] for example in examples]), targets_of(examples), len(examples))

    def forward(self, model, batch):
        """Logits as (all choices of all rows, 1), whatever number each row has."""
        outputs = super().forward(model, batch)
        outputs.logits = outputs.logits.reshape(-1, 1)
        return outputs

    def loss(self, outputs, batch):
        from torch.nn.functional import cross_entropy

        logits = choice_logits(outputs.logits, batch.inputs["choices"])
        return Loss(cross_entropy(logits, batch.targets, reduction="sum"), batch.size)

    def judge(self, outputs, batch, base):
        counts = batch.inputs["choices"]
        rows = zip(choice_logits(outputs.logits, counts).softmax(-1).tolist(), counts, strict=True)
        return [{"label": max(range(count), key=row.__getitem__), "probability": max(row), "probabilities": row[:count]}
                for row, count in rows]

    def merge(self, parts, row, base):
        return {**parts[0], "choice": texts_of(row["choices"])[parts[0]["label"]]}

    def score(self, predictions, rows, base):
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score([right(row) for row in rows], [p["label"] for p in predictions]))}

    def report(self, predictions, rows, base):
        return {"chance": sum(1 / len(texts_of(row["choices"])) for row in rows) / len(rows)}

    def usage(self, repo, base):
        return usages.choosing(repo)

    def sample(self, count):
        return samples.chosen(count)

    def gold(self, row, base):
        index, count = right(row), len(texts_of(row["choices"]))
        sure = {"label": index, "probability": 1.0, "probabilities": [float(n == index) for n in range(count)]}
        return self.merge([sure], row, base)


@hookimpl
def hubtune_tasks():
    return [MultipleChoice]
