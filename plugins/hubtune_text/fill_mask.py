"""Fill-mask: words that are hidden in a text; also how an encoder is made familiar with the texts of a field."""

from dataclasses import dataclass

from hubtune import Batch, Column, DataError, Loss, Metric, ModelError, Setup, Task, exact, hookimpl, option
from hubtune_text.texts import pad, pad_token

IGNORED = -100
"""The target where nothing is to be found, as in transformers."""


@dataclass(frozen=True)
class MaskOptions:
    probability: float = option(0.15, "the share of a text's pieces that are to be found")


class FillMask(Task[MaskOptions]):
    """The pieces of a text that are hidden, from all others (Devlin et al., BERT, arXiv:1810.04805).

    Of the chosen pieces 80% are masked, 10% replaced by a random piece and 10% left. In training they are drawn anew in
    every epoch; in evaluation from the text itself, so that two models are asked the same. Training on the texts of a
    field adapts a model to it before another task (Gururangan et al., arXiv:2004.10964).
    """

    contract = 1
    name = "fill-mask"
    summary = "the words that are hidden in a text; adapts a model to a field's texts"
    model = "AutoModelForMaskedLM"
    pipeline_tag = "fill-mask"
    metric = Metric("loss", higher_is_better=False)
    Options = MaskOptions
    columns = (Column("text", ("text", "sentence", "content", "review", "body", "document", "abstract", "message",
                               "comment", "tweet", "passage", "title", "sentence1", "question")),)

    def configure(self, facts, base):
        if base.processor.mask_token_id is None:
            raise ModelError("its tokenizer has no mask token, so it was not trained to find hidden words.",
                             where=base.repo, hint="Take an encoder such as BERT, or: hubtune train text-generation")
        if not 0 < self.options.probability < 1:
            raise DataError(f"task.probability is a share between 0 and 1, not {self.options.probability}.",
                            hint="BERT's is 0.15.")
        return Setup(pad_token(base), base.processor)

    def encode(self, rows, base):
        """Windows over a text, without overlap, each framed as the tokenizer frames a text."""
        if not len(rows):
            return
        start, end = frame(base.processor)
        texts = base.processor([row["text"] for row in rows], add_special_tokens=False, verbose=False)["input_ids"]
        for ids in texts:
            room = len(ids) if base.max_length is None else base.max_length - len(start) - len(end)
            windows = [ids[place : place + max(1, room)] for place in range(0, len(ids), max(1, room))] or [[]]
            asked = base.processor.mask_token_id in ids
            yield [{"input_ids": [*start, *window, *end], "asked": asked} for window in windows]

    def size(self, example):
        return len(example["input_ids"])

    def collate(self, examples, base, draws):
        """targets (examples, longest): the piece to be found, -100 elsewhere."""
        import torch

        shown, targets = [], []
        for index, example in enumerate(examples):
            hidden, target = list(example["input_ids"]), [IGNORED] * len(example["input_ids"])
            if draws is not None or not example["asked"]:  # a mask of the user's is answered, and no other set
                hidden, target = self.hide(hidden, base, None if draws is None else draws[index].random())
            shown.append({"input_ids": hidden})
            targets.append(target)
        inputs = pad(base, shown)
        found = torch.full_like(inputs["input_ids"], IGNORED)
        for row, target in zip(found, targets, strict=True):
            row[: len(target)] = torch.tensor(target)
        return Batch(inputs, found, len(examples))

    def hide(self, ids, base, draw):
        """What the model sees of a window, and what it is to find; without a draw, drawn from the window itself."""
        from random import Random

        draw = draw or Random(",".join(map(str, ids)))
        shown, targets = list(ids), [IGNORED] * len(ids)
        special = set(base.processor.all_special_ids)
        pieces = [place for place, piece in enumerate(ids) if piece not in special]
        words = min(len(base.processor), base.config.get_text_config().vocab_size)
        for place in draw.sample(pieces, min(len(pieces), max(1, round(self.options.probability * len(pieces))))):
            targets[place] = ids[place]
            chance, other = draw.random(), draw.randrange(words)
            shown[place] = base.processor.mask_token_id if chance < 0.8 else other if chance < 0.9 else ids[place]
        return shown, targets

    def count(self, batch):
        return {"loss": float((batch.targets != IGNORED).sum())}

    def loss(self, outputs, batch):
        from torch.nn.functional import cross_entropy

        chosen = batch.targets != IGNORED
        logits = outputs.logits[chosen]
        total = cross_entropy(exact(logits), batch.targets[chosen], reduction="sum")
        return Loss(total, float(chosen.sum()))

    def judge(self, outputs, batch, base):
        from torch.nn.functional import cross_entropy

        found = []
        for logits, ids, targets in zip(outputs.logits, batch.inputs["input_ids"], batch.targets, strict=True):
            chosen = targets != IGNORED
            asked, right = exact(logits[chosen]), targets[chosen]
            answer = {"nll": float(cross_entropy(asked, right, reduction="sum")), "tokens": len(right),
                      "hits": int((asked.argmax(-1) == right).sum())}
            if not len(right):
                blanks = exact(logits[ids == base.processor.mask_token_id]).softmax(-1)
                best = zip(*(part.tolist() for part in blanks.max(-1)), strict=True)
                answer["fills"] = [{"token": base.processor.decode([piece]).strip(), "probability": probability}
                                   for probability, piece in best]
            found.append(answer)
        return found

    def merge(self, parts, row, base):
        from itertools import zip_longest

        whole = {name: sum(part[name] for part in parts) for name in ("nll", "tokens", "hits")}
        fills = [fill for part in parts for fill in part.get("fills", ())]
        if fills:
            around, words = row["text"].split(str(base.processor.mask_token)), [fill["token"] for fill in fills]
            filled = zip_longest(around, words, fillvalue="")
            whole |= {"fills": fills, "text": "".join(before + word for before, word in filled)}
        return whole

    def show(self, prediction):
        """The fills; for a text without masks, how well its pieces were found."""
        if "fills" in prediction:
            return {"fills": prediction["fills"], "text": prediction["text"]}
        return totals([prediction]) if prediction["tokens"] else {}

    def score(self, predictions, rows, base):
        if not any(prediction["tokens"] for prediction in predictions):
            raise DataError("no text has a piece that could be hidden and asked for.",
                            hint="Evaluation hides pieces itself: take texts without masks.")
        return totals(predictions)

    def usage(self, repo, base):
        return (f'from transformers import pipeline\n\npipe = pipeline("fill-mask", model="{repo}")\n'
                f'print(pipe("What a {base.processor.mask_token} day"))')

    def sample(self, count):
        things, verbs = ("cat", "dog", "bird", "fish"), ("sleeps", "waits", "sings", "swims")
        return [{"text": f"The {things[i % 4]} {verbs[i % 4]}, and the {things[i % 4]} is glad."} for i in range(count)]

    def gold(self, row, base):
        return {"nll": 0.0, "tokens": 1, "hits": 1}


def frame(processor):
    """The special tokens before and after a text."""
    inner = processor("a", add_special_tokens=False)["input_ids"]
    whole = processor("a")["input_ids"]
    place = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    return whole[:place], whole[place + len(inner) :]


def totals(predictions):
    """Mean negative log-likelihood of a hidden piece, in nats, its exponential, and the share that was found."""
    from math import exp

    nll, pieces, hits = (sum(prediction[name] for prediction in predictions) for name in ("nll", "tokens", "hits"))
    loss = nll / pieces
    return {"loss": loss, "perplexity": exp(min(loss, 700.0)), "accuracy": hits / pieces}


@hookimpl
def hubtune_tasks():
    return [FillMask]
