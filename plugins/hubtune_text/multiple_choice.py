"""Multiple choice: which of a few texts fits best."""

import json

from hubtune import Batch, Column, DataError, Loss, Metric, Setup, Task, exact, hookimpl, label_text, row_numbers
from hubtune_text.texts import pad, pad_token, tokenise

USAGE = '''import torch
from transformers import AutoModelForMultipleChoice, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForMultipleChoice.from_pretrained("{repo}").eval()
question, choices = "The kettle boils. She", ["makes tea.", "swims home.", "is a chair."]
inputs = tokenizer([question] * len(choices), choices, truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**{name: value[None] for name, value in inputs.items()}).logits[0]
print(choices[int(logits.argmax())], logits.softmax(-1).tolist())'''


class MultipleChoice(Task):
    """The model gives each choice a number, beside its question; rows may have different numbers of choices."""

    contract = 1
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
            wrong = [i for i, row in enumerate(rows) if len(texts_of(row["choices"])) < 2]
            if wrong:
                raise DataError(f"{len(wrong)} rows have fewer than two choices: {row_numbers(wrong)} of {split}.",
                                hint='Choices are a list of texts, or such a list as JSON: ["at home", "at sea"]')
            wrong = [i for i, row in enumerate(rows) if right(row) is None]
            if wrong:
                raise DataError(f"{rows[wrong[0]]['label']!r} is none of the choices: {row_numbers(wrong)} of {split}.",
                                hint="A label is the text of a choice, its letter (A is the first), or its number from 0.")
        return {}

    def configure(self, facts, base):
        return Setup(pad_token(base), base.processor)

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
        import torch

        most = max(len(example["choices"]) for example in examples)
        lists = [[*e["choices"], *e["choices"][:1] * (most - len(e["choices"]))] for e in examples]  # some twice
        inputs = pad(base, [choice for choices in lists for choice in choices])
        inputs = {name: value.unflatten(0, (len(examples), most)) for name, value in inputs.items()}
        inputs["choices"] = [len(example["choices"]) for example in examples]
        targets = None
        if all("target" in example for example in examples):
            targets = torch.tensor([example["target"] for example in examples])
        return Batch(inputs, targets, len(examples))

    def forward(self, model, batch):
        """Logits as (all choices of all rows, 1), whatever number each row has."""
        outputs = super().forward(model, batch)
        outputs.logits = outputs.logits.reshape(-1, 1)
        return outputs

    def logits(self, outputs, batch):
        """(examples, most choices); minus infinity where a row has fewer."""
        import torch

        logits = exact(outputs.logits).view(batch.size, -1)
        counts = torch.tensor(batch.inputs["choices"], device=logits.device)[:, None]
        return logits.masked_fill(torch.arange(logits.shape[1], device=logits.device) >= counts, float("-inf"))

    def loss(self, outputs, batch):
        from torch.nn import functional as F

        return Loss(F.cross_entropy(self.logits(outputs, batch), batch.targets, reduction="sum"), batch.size)

    def judge(self, outputs, batch, base):
        rows = zip(self.logits(outputs, batch).softmax(-1).tolist(), batch.inputs["choices"], strict=True)
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
        return USAGE.replace("{repo}", repo)

    def sample(self, count):
        """The right choice is what people do, the others what they cannot do."""
        sensible = ("makes tea.", "opens the door.", "reads a book.", "calls a friend.")
        absurd = ("drinks the moon.", "swims through a wall.", "eats the river.", "flies under a stone.", "melts the moon.")
        rows = []
        for index in range(count):
            wrong = [absurd[(index + n) % 5] for n in range(2 + index % 2)]
            at = index % 3
            rows.append({"question": f"It is {index % 7 + 3} o'clock. She",
                         "choices": [*wrong[:at], sensible[index % 4], *wrong[at:]], "label": at})
        return rows

    def gold(self, row, base):
        texts, index = texts_of(row["choices"]), right(row)
        return {"label": index, "probability": 1.0, "probabilities": [float(n == index) for n in range(len(texts))],
                "choice": texts[index]}


def read(cell):
    """Choices as they are in the data: lists and dicts may be written as JSON."""
    if isinstance(cell, str):
        try:
            return json.loads(cell)
        except ValueError:
            return []
    return cell


def texts_of(cell):
    """The texts of choices: a list, or a dict of lists `text` and `label` as in ARC and CommonsenseQA."""
    cell = read(cell)
    return [label_text(text) for text in (cell.get("text") if isinstance(cell, dict) else cell) or ()]


def right(row):
    """The index of the right choice, from its own name, its text, its number from 0 or its letter; None if it is none."""
    label, cell = label_text(row["label"]).strip(), read(row["choices"])
    texts = texts_of(cell)
    names = [label_text(name) for name in cell.get("label") or ()] if isinstance(cell, dict) else []
    known = [*(names and [names]), *([texts] if isinstance(row["label"], str) else []),
             [str(index) for index in range(len(texts))], [chr(ord("A") + index) for index in range(len(texts))],
             [chr(ord("a") + index) for index in range(len(texts))]]
    return next((found.index(label) for found in known if label in found), None)


@hookimpl
def hubtune_tasks():
    return [MultipleChoice]
