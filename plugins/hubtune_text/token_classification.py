"""Token classification: a tag for every word, such as names of people and places, or parts of speech."""

from dataclasses import dataclass

from hubtune_labels.scores import class_scores, class_table

from hubtune import (
    Batch,
    Column,
    DataError,
    Loss,
    Metric,
    Setup,
    exact,
    hookimpl,
    label_config,
    label_space,
    option,
    row_numbers,
)
from hubtune_text.tags import iob2, learnt, listed, scheme_of, span_scores, span_table, spans
from hubtune_text.texts import pad_token
from hubtune_text.windows import Windowed, first_pieces, windows


@dataclass(frozen=True)
class TokenOptions:
    scheme: str = option("auto", "what tags say: words of spans, with B- and I- before the type (bio) or the bare type "
                         "(io), or something about single words", choices=("auto", "bio", "io", "words"))
    stride: int = option(64, "tokens that neighbouring windows of a long row share")


class TokenClassification(Windowed):
    """A tag per word; those of spans are learnt in IOB2, whatever scheme the data has, and scored as spans.

    A word's tag is learnt and read at its first piece (Devlin et al., arXiv:1810.04805, section 5.3).
    """

    contract = 1
    name = "token-classification"
    summary = "a tag for every word: names, parts of speech"
    model = "AutoModelForTokenClassification"
    pipeline_tag = "token-classification"
    metric = Metric("f1")
    Options = TokenOptions
    columns = (
        Column("tokens", ("tokens", "words", "token", "text", "sentence", "form", "forms"), kind="words"),
        Column("tags", ("ner_tags", "tags", "labels", "ner", "upos", "pos_tags", "pos", "chunk_tags", "xpos", "label"),
               kind="label", needed="train"),
    )

    def inspect(self, splits):
        for split, rows in splits.items():
            cells = [(listed(row["tokens"]), listed(row["tags"])) for row in rows]
            refuse("no words", [i for i, (words, _) in enumerate(cells) if not any(w.strip() for w in words)], split)
            refuse("another number of tags than of words, or a word without a tag",
                   [i for i, (words, tags) in enumerate(cells) if len(words) != len(tags) or not all(tags)], split)
        raw = {split: [listed(row["tags"]) for row in rows] for split, rows in splits.items()}
        known, scheme = {tag for tags in raw["train"] for tag in tags}, self.options.scheme
        scheme = scheme_of(known) if scheme == "auto" else scheme
        if scheme == "words":
            return {"scheme": scheme, "labels": label_space(raw)}
        types = label_space({split: [["O", *(kind for kind, _, _ in spans(tuple(learnt(tags, scheme))))]
                                     for tags in rows] for split, rows in raw.items()})
        return {"scheme": scheme, "labels": ["O", *(f"{p}-{kind}" for kind in types if kind != "O" for p in "BI")]}

    def configure(self, facts, base):
        self.scheme = facts.get("scheme") or scheme_of(base.config.id2label.values())
        return Setup({**pad_token(base), **label_config(facts.get("labels"), base.config)}, base.processor)

    def right(self, value, base):
        """A row's tags as the model writes them."""
        known, tags = base.config.label2id, learnt(listed(value), self.scheme)
        strange = [tag for tag in tags if tag not in known]
        if strange:
            raise DataError(f"the tag {strange[0]!r} is none of the model's: {', '.join(map(repr, known))}.")
        return tags

    def metric_of(self, base):
        return self.metric if self.scheme != "words" else Metric("accuracy")

    def encode(self, rows, base):
        rows = list(rows)
        texts = [listed(row["tokens"]) for row in rows]
        refuse("no words", [i for i, words in enumerate(texts) if not any(word.strip() for word in words)], "the data")
        made = windows(base, [" ".join(words) for words in texts], stride=self.options.stride) if rows else []
        for row, words, examples in zip(rows, texts, made, strict=True):
            tags = None if row.get("tags") is None else self.right(row["tags"], base)
            for example, first in zip(examples, first_pieces(examples, words), strict=True):
                example["places"] = [first.get(position) for position in range(len(example["input_ids"]))]
                if tags is not None:
                    ids = base.config.label2id
                    example["target"] = [-100 if word is None else ids[tags[word]] for word in example["places"]]
            yield examples

    def collate(self, examples, base, draws):
        import torch

        inputs, targets = self.inputs(examples, base), None
        if all("target" in example for example in examples):
            targets = torch.full_like(inputs["input_ids"], -100)
            targets[inputs["attention_mask"].bool()] = torch.tensor([tag for e in examples for tag in e["target"]])
        return Batch(inputs, targets, len(examples))

    def count(self, batch):
        return {"loss": float((batch.targets != -100).sum())}

    def logits(self, outputs, batch):
        """(examples, longest, tags); a method with a prompt puts it before them."""
        return exact(outputs.logits[:, -batch.inputs["input_ids"].shape[1]:])

    def loss(self, outputs, batch):
        from torch.nn import functional as F

        total = F.cross_entropy(self.logits(outputs, batch).flatten(0, 1), batch.targets.flatten(), reduction="sum")
        return Loss(total, self.count(batch)["loss"])

    def judge(self, outputs, batch, base):
        best, found = self.logits(outputs, batch).softmax(-1).max(-1), []
        for places, mask, *of_row in zip(batch.inputs["places"], batch.inputs["attention_mask"].bool(), *best, strict=True):
            values, ids = (row[mask].tolist() for row in of_row)
            at = [position for position, word in enumerate(places) if word is not None]
            found.append({"words": [places[p] for p in at], "tags": [base.config.id2label[ids[p]] for p in at],
                          "probabilities": [values[p] for p in at],
                          "context": [min(p, len(places) - 1 - p) for p in at]})
        return found

    def merge(self, parts, row, base):
        """Each word from the window that shows most of what is around it. A span's `end` is the word after it."""
        words = listed(row["tokens"])
        best = {}
        for part in parts:
            for word, *answer in zip(*(part[key] for key in ("words", "context", "tags", "probabilities")), strict=True):
                best[word] = max(best.get(word, [-1]), answer, key=lambda one: one[0])
        nothing = [0, base.config.id2label[0], 0.0]  # a word that the tokenizer leaves out, such as a control character
        answers = [best.get(index, nothing) for index in range(len(words))]
        return self.answer(words, [tag for _, tag, _ in answers], [value for *_, value in answers])

    def answer(self, words, tags, probabilities):
        if self.scheme == "words":
            return {"tags": tags, "probabilities": probabilities}
        return {"tags": tags, "probabilities": probabilities, "spans": [
            {"type": kind, "start": start, "end": end, "text": " ".join(words[start:end]),
             "score": sum(probabilities[start:end]) / (end - start)} for kind, start, end in spans(tuple(tags))]}

    def score(self, predictions, rows, base):
        gold, found = self.compared(predictions, rows, base)
        ids = base.config.label2id
        flat = class_scores(*([ids[tag] for tags in side for tag in tags] for side in (gold, found)), len(ids))
        return flat if self.scheme == "words" else {**span_scores(gold, found), "accuracy": flat["accuracy"]}

    def report(self, predictions, rows, base):
        gold, found = self.compared(predictions, rows, base)
        if self.scheme != "words":
            return span_table(gold, found)
        ids = base.config.label2id
        return class_table(*([[ids[tag]] for tags in side for tag in tags] for side in (gold, found)), list(ids), "one")

    def compared(self, predictions, rows, base):
        """The right tags and the given ones, row by row."""
        return [self.right(row["tags"], base) for row in rows], [p["tags"] for p in predictions]

    def usage(self, repo, base):
        strategy = ', aggregation_strategy="first"' if scheme_of(base.config.id2label.values()) == "bio" else ""
        return (f'from transformers import pipeline\n\npipe = pipeline("token-classification", model="{repo}"{strategy})\n'
                'print(pipe("Ada Lovelace was born in London ."))')

    def sample(self, count):
        people, places = ("Ada", "Ada Lovelace", "Tom", "Tom Brown"), ("Rome", "New York", "Paris")
        rows = []
        for index in range(count):
            who, where = people[index % 4], places[index % 3]
            words = [*who.split(), *("lives in" if index % 2 else "never saw").split(), *where.split(), "."]
            tags = iob2([*["I-person"] * len(who.split()), "O", "O", *["I-place"] * len(where.split()), "O"])
            rows.append({"tokens": words, "tags": tags})
        return rows

    def gold(self, row, base):
        tags = self.right(row["tags"], base)
        return self.answer(listed(row["tokens"]), tags, [1.0] * len(tags))


def refuse(what, bad, split):
    if bad:
        raise DataError(f"{len(bad)} rows have {what}: {row_numbers(bad)} of {split}.",
                        hint="One tag a word, as lists or as strings that blanks divide.")


@hookimpl
def hubtune_tasks():
    return [TokenClassification]
