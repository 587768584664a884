"""Text generation with a decoder: answers to instructions (only the answers are learnt), or plain texts."""

from dataclasses import dataclass

from hubtune import Batch, Column, DataError, Loss, Metric, Setup, Task, hookimpl, option, row_numbers
from hubtune_generation import chat, sequences


@dataclass(frozen=True)
class GenerationOptions:
    max_new_tokens: int = option(128, "the longest text that is written for a row")
    temperature: float = option(0.0, "0: always the likeliest token; above: drawn")
    generate: bool = option(False, "write an answer for every row that is evaluated too, which is slow")
    packing: bool = option(False, "train on examples joined into rows, where the model keeps them apart")


class TextGeneration(Task[GenerationOptions]):
    """The next token: of the answers in conversations, of completions of prompts, or of plain texts."""

    contract = 1
    name = "text-generation"
    summary = "answers to prompts or conversations, or plain texts, by a decoder"
    model = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    input = "prompt"
    metric = Metric("loss", higher_is_better=False)
    Options = GenerationOptions
    form = None
    columns = (
        Column("prompt", ("prompt", "instruction", "question", "query", "input"), kind="any", needed="never"),
        Column("input", ("input", "context"), needed="never", gaps=True),
        Column("completion", ("completion", "response", "answer", "output", "chosen", "target", "reply"), kind="label",
               needed="never"),  # a label is hidden from predictions
        Column("messages", ("messages", "conversations", "conversation", "dialogue", "chat"), kind="any",
               needed="never"),
        Column("text", ("text", "content", "document", "story", "body"), needed="never"),
    )

    def inspect(self, splits):
        roles = set(splits["train"][0])
        form = "chat" if "messages" in roles or {"prompt", "completion"} <= roles else "text"
        if form == "text" and "text" not in roles:
            raise DataError(
                "no columns to learn from: there are neither messages, nor a prompt with its completion (an "
                f"instruction with its output), nor a text. Found: {', '.join(sorted(roles)) or 'none of these'}.",
                hint="Say which they are: --set data.messages=COLUMN, or --set data.prompt=COLUMN --set "
                "data.completion=COLUMN, or --set data.text=COLUMN",
            )
        what = "no answer at their end" if form == "chat" else "an empty text"
        for split, rows in splits.items():
            bad = [index for index, row in enumerate(rows) if not learnable(row, form)]
            if bad:
                raise DataError(f"{len(bad)} of {len(rows)} rows have {what}: {row_numbers(bad)} of {split}.",
                                hint="Mend these rows or take them out, and run the same command again.")
        return {"form": form}

    def configure(self, facts, base):
        chat.prepare(base.processor)
        self.form = facts.get("form") or ("chat" if base.processor.chat_template else None)
        if self.form != "text" and not base.processor.chat_template:
            base.processor.chat_template = chat.simple_template(base.processor)
        self.checked = False
        # An encoder such as BERT sees what it is to predict unless it is told to be a decoder.
        return Setup({"is_decoder": True} if getattr(base.config, "is_decoder", None) is False else {}, base.processor)

    def encode(self, rows, base):
        for row in rows:
            if row.get("messages") is None and (row.get("prompt") is None or (self.form == "text" and row.get("text"))):
                yield windows(chat.plain(base, row["text"], ends=True), base.max_length)
            elif self.form != "chat" and row.get("messages") is None and row.get("completion") is None:
                ids = chat.plain(base, row["prompt"], ends=False)
                yield [chat.cut(base, {"input_ids": ids}, len(ids))]
            else:
                yield [chat.encoded(base, chat.conversation(row))]

    def size(self, example):
        return len(example["input_ids"])

    def collate(self, examples, base, draws):
        import torch

        labelled = all("labels" in example for example in examples)
        starts = torch.tensor([example["start"] for example in examples]) if labelled else None
        if labelled and draws is not None and self.options.packing:
            inputs, labels = sequences.packed(examples)
            return Batch(inputs, {"labels": labels, "starts": starts}, len(examples))
        ids, mask = sequences.padded(base, [example["input_ids"] for example in examples])
        if labelled:
            labels, _ = sequences.padded(base, [example["labels"] for example in examples], chat.IGNORED)
        targets = {"labels": labels, "starts": starts} if labelled else None
        return Batch({"input_ids": ids, "attention_mask": mask}, targets, len(examples))

    def forward(self, model, batch):
        if "position_ids" in batch.inputs and not self.checked:
            self.checked = sequences.refuse_leaks(model, batch.inputs)
        return model(**batch.inputs)

    def count(self, batch):
        return {"loss": float(sequences.target_count(sequences.labels_of(batch)))}

    def loss(self, outputs, batch):
        losses, _ = sequences.token_losses(*sequences.following(outputs.logits, sequences.labels_of(batch)))
        return Loss(losses.sum(), self.count(batch)["loss"])

    def judge(self, outputs, batch, base):
        return sequences.judged(*sequences.following(outputs.logits, sequences.labels_of(batch)))

    def predict(self, model, batch, base):
        if batch.targets is not None and not (self.options.generate and bool((batch.targets["starts"] > 0).all())):
            return [{} for _ in range(batch.size)]
        lengths = batch.inputs["attention_mask"].sum(1) if batch.targets is None else batch.targets["starts"]
        ids = batch.inputs["input_ids"].tolist()
        prompts = [row[:length] for row, length in zip(ids, lengths.tolist(), strict=True)]
        texts = sequences.continued(model, base, prompts, chat.end_tokens(base), self.options.max_new_tokens,
                                    self.options.temperature)
        return [{"text": text} for text in texts]

    def merge(self, parts, row, base):
        """The sums over the windows of a long text."""
        return {**parts[0], **{name: sum(part[name] for part in parts) for name in ("nll", "tokens", "hits")
                               if name in parts[0]}}

    def score(self, predictions, rows, base):
        scores = sequences.likelihood_scores(predictions)
        if all("text" in prediction for prediction in predictions):
            from sklearn.metrics import accuracy_score

            wanted = [chat.conversation(row)[-1]["content"].strip() for row in rows]
            scores["exact_match"] = float(accuracy_score(wanted, [p["text"] for p in predictions]))
        return scores

    def question(self, row):
        """A conversation without its last answer; a plain text is gone on with."""
        if row.get("messages") is not None:
            said = chat.messages(row["messages"], "user")
            return {**row, "messages": said[:-1] if chat.answered(said) else said}
        return row if row.get("prompt") is not None else {"prompt": row["text"]}

    def show(self, prediction):
        return sequences.without_counts(prediction)

    def usage(self, repo, base):
        plain = self.form != "chat"
        asked = '"Once upon a time"' if plain else '[{"role": "user", "content": "What a lovely day"}]'
        last = "" if plain else '[-1]["content"]'
        return (f'from transformers import pipeline\n\npipe = pipeline("text-generation", model="{repo}")\n'
                f"found = pipe({asked}, max_new_tokens={self.options.max_new_tokens}, do_sample=False, "
                f'eos_token_id={chat.end_tokens(base)})\nprint(found[0]["generated_text"]{last})')

    def sample(self, count):
        words = ("river", "kettle", "chair", "parcel", "book", "hotel", "film", "soup")
        asked = [(words[i % 8], i // 8 + 2) for i in range(count)]
        return [{"prompt": f"Say {word} {times} times.", "completion": " ".join([word] * times)}
                for word, times in asked]

    def gold(self, row, base):
        tokens = sum(label != chat.IGNORED for e in next(iter(self.encode([row], base))) for label in e["labels"])
        said = {} if self.form == "text" else {"text": chat.conversation(row)[-1]["content"]}
        return {"nll": 0.0, "tokens": tokens, "hits": tokens, **said}


def learnable(row, form):
    """Whether a row has something to learn."""
    if form == "text":
        return isinstance(row["text"], str) and bool(row["text"].strip())
    try:
        return chat.answered(chat.conversation(row))
    except (KeyError, TypeError, AttributeError):
        return False


def windows(ids, limit):
    """A plain text as examples in which every token but the first is learnt once: each begins where another ends."""
    limit = max(2, limit or len(ids))
    parts = [ids[at : at + limit] for at in range(0, max(1, len(ids) - 1), limit - 1)]
    return [{"input_ids": part, "labels": [chat.IGNORED, *part[1:]], "start": 0} for part in parts]


@hookimpl
def hubtune_tasks():
    return [TextGeneration]
