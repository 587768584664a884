"""A task in one file: levels that have an order, such as low, medium, high, as one yes-or-no question a step.

After Frank and Hall, A Simple Approach to Ordinal Classification, ECML 2001.
"""

from dataclasses import dataclass

from hubtune import Batch, Column, DataError, Loss, Metric, ModelSetup, Task, hookimpl, option, row_numbers


@dataclass(frozen=True)
class LevelsOptions:
    order: list[str] = option([], "the levels, from the lowest to the highest")


class Levels(Task[LevelsOptions]):
    """The level of a text, where being wrong by two levels is worse than being wrong by one."""

    contract = 2
    name = "levels"
    summary = "one of several levels that have an order, for a text"
    model = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    metric = Metric("steps_off", higher_is_better=False)
    shares = ("accuracy",)
    Options = LevelsOptions
    columns = (
        Column("text", ("text", "message", "body")),
        Column("label", ("level", "label", "priority"), kind="label", needed="train"),
    )

    def validate_data(self, splits):
        hint = "For example: --set 'task.order=[\"low\", \"medium\", \"high\"]'"
        if len(self.options.order) < 2:
            raise DataError("task.order names the levels, from the lowest to the highest: at least two.", hint=hint)
        for split, rows in splits.items():
            strange = [i for i, row in enumerate(rows) if row["label"] not in self.options.order]
            if strange:
                raise DataError(f"levels that task.order does not name: {row_numbers(strange, rows)} of {split}.", hint=hint)
        return {"levels": self.options.order}

    def model_config(self, dataset_info, base):
        self.levels = dataset_info.get("levels", self.options.order)
        questions = [f"above {level}" for level in self.levels[:-1]]
        return ModelSetup({
            "problem_type": "multi_label_classification", "num_labels": len(questions),
            "id2label": dict(enumerate(questions)), "label2id": {name: i for i, name in enumerate(questions)},
        })

    def encode(self, rows, base):
        cut = {"truncation": base.max_length is not None, "max_length": base.max_length}
        encoded = base.processor([row["text"] for row in rows], verbose=False, **cut)
        for row, ids in zip(rows, encoded["input_ids"], strict=True):
            yield [{"input_ids": ids, "level": None if row.get("label") is None else self.level(row)}]

    def level(self, row):
        if row["label"] not in self.levels:
            raise DataError(f"the level {row['label']!r} is none of the model's: {', '.join(self.levels)}.")
        return self.levels.index(row["label"])

    def num_tokens(self, example):
        return len(example["input_ids"])

    def collate(self, examples, base, rngs):
        import torch

        inputs = base.processor.pad([{"input_ids": e["input_ids"]} for e in examples], return_tensors="pt", verbose=False)
        levels = [e["level"] for e in examples]
        steps = range(len(self.levels) - 1)
        targets = None if None in levels else torch.tensor([[float(level > step) for step in steps] for level in levels])
        return Batch(dict(inputs), targets, len(examples))

    def loss(self, outputs, batch):
        from torch.nn.functional import binary_cross_entropy_with_logits

        targets = batch.targets.to(outputs.logits.dtype)
        each = binary_cross_entropy_with_logits(outputs.logits, targets, reduction="none")
        return Loss(each.mean(1).sum())

    def postprocess(self, outputs, batch, base):
        above = outputs.logits.float().sigmoid()
        chosen = (above > 0.5).sum(1).tolist()
        return [
            {"label": self.levels[level], "level": level, "expected": expected}
            for level, expected in zip(chosen, above.sum(1).tolist(), strict=True)
        ]

    def score(self, predictions, rows, base):
        off = [abs(p["level"] - self.level(row)) for p, row in zip(predictions, rows, strict=True)]
        return {"steps_off": sum(off) / len(off), "accuracy": sum(step == 0 for step in off) / len(off)}

    def usage(self, repo, base):
        return (f'from transformers import pipeline\n\npipe = pipeline("text-classification", model="{repo}", top_k=None)\n'
                f'levels = {self.levels}\nfor found in pipe(["What a lovely day"]):\n'
                '    print(levels[sum(step["score"] > 0.5 for step in found)])')


@hookimpl
def hubtune_tasks():
    return [Levels]
