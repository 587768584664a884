"""Question answering: the span of a text that answers a question about it."""

from dataclasses import dataclass

from hubtune import Batch, Column, DataError, Loss, Metric, Setup, exact, hookimpl, option, row_numbers
from hubtune_text.answers import answers_of, span_in, squad
from hubtune_text.texts import pad_token
from hubtune_text.windows import Windowed, windows

NOTHING = (0, 0)
"""The place of the answer that a window has none: at the classification token, or the first where there is no such."""
USAGE = '''import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForQuestionAnswering.from_pretrained("{repo}").eval()
question, context = "Where does the river rise?", "The river rises in Wales. It flows through four towns to the sea."
inputs = tokenizer(question, context, truncation="only_second", return_tensors="pt", return_offsets_mapping=True)
places = inputs.pop("offset_mapping")[0].tolist()
with torch.no_grad():
    output = model(**inputs)
outside = torch.tensor([text != 1 for text in inputs.sequence_ids(0)])
start, end = (logits[0].masked_fill(outside, float("-inf")) for logits in (output.start_logits, output.end_logits))
spans = (start[:, None] + end[None, :]).masked_fill(torch.ones(len(start), len(start)).tril(-1).bool(), float("-inf"))
first, last = divmod(int(spans.argmax()), len(start))
print(context[places[first][0] : places[last][1]].strip())'''


@dataclass(frozen=True)
class AnsweringOptions:
    stride: int = option(128, "tokens that neighbouring windows of a long context share")
    max_answer_length: int = option(30, "tokens of an answer at most")
    unanswerable: bool = option(False, "some questions have no answer in their context: no answers in training, and an "
                                "empty one where that is likelier than any span")
    null_threshold: float = option(0.0, "how much likelier, as a difference of log-probabilities, no answer must be")


class QuestionAnswering(Windowed):
    """The likeliest span of the context: its first and its last token are learnt (Devlin et al., arXiv:1810.04805)."""

    contract = 1
    name = "question-answering"
    summary = "the span of a context that answers a question"
    model = "AutoModelForQuestionAnswering"
    pipeline_tag = "question-answering"
    metric = Metric("f1")
    Options = AnsweringOptions
    needs = ("torchmetrics",)
    extra = "hubtune[generation]"
    columns = (
        Column("question", ("question", "query", "questions")),
        Column("context", ("context", "passage", "paragraph", "document", "article", "text")),
        Column("answers", ("answers", "answer", "answer_text"), kind="any", needed="train"),
    )

    def inspect(self, splits):
        for split, rows in splits.items():
            found = [(row["context"], answers_of(row["answers"], row["context"])) for row in rows]
            empty = [i for i, (_, answers) in enumerate(found) if not answers]
            if empty and not self.options.unanswerable:
                raise DataError(f"{len(empty)} questions have no answer: {row_numbers(empty)} of {split}.",
                                hint="If that is meant: --set task.unanswerable=true")
            wrong = [i for i, (context, answers) in enumerate(found)
                     if any(start < 0 or context[start : start + len(text)] != text for text, start in answers)]
            if wrong:
                raise DataError(f"{len(wrong)} answers do not stand where they should in their context: "
                                f"{row_numbers(wrong)} of {split}.", hint="An answer is a string of the context, or "
                                '{"text": [...], "answer_start": [...]}, counted in characters from 0.')
        return {}

    def configure(self, facts, base):
        return Setup(pad_token(base), base.processor)

    def encode(self, rows, base):
        rows = list(rows)
        made = windows(base, [row["question"].strip() for row in rows], [row["context"] for row in rows],
                       self.options.stride) if rows else []
        for row, examples in zip(rows, made, strict=True):
            answers = None if row.get("answers") is None else answers_of(row["answers"], row["context"])
            for example in examples:
                ids, places = list(example["input_ids"]), example["places"]
                null = ids.index(base.processor.cls_token_id) if base.processor.cls_token_id in ids else 0
                if answers is not None:
                    example["target"] = (answers and span_in(places, *answers[0])) or (null, null)
                places[null] = NOTHING
            yield examples

    def collate(self, examples, base, draws):
        import torch

        inputs, targets = self.inputs(examples, base), None
        if all("target" in example for example in examples):
            shift = inputs["attention_mask"].argmax(1, keepdim=True)  # of models that pad on the left
            targets = torch.tensor([example["target"] for example in examples]) + shift
        return Batch(inputs, targets, len(examples))

    def logs(self, outputs, batch):
        """Log-probabilities of being the first and the last token, (examples, longest) each: of the context's tokens
        and of no answer, so that neither padding nor the question takes part."""
        import torch

        mask = batch.inputs["attention_mask"].bool()
        closed = ~mask
        closed[mask] = torch.tensor([p is None for places in batch.inputs["places"] for p in places], device=mask.device)
        both = (logits[:, -mask.shape[1] :] for logits in (outputs.start_logits, outputs.end_logits))
        return [exact(logits).masked_fill(closed, float("-inf")).log_softmax(-1) for logits in both]

    def loss(self, outputs, batch):
        from torch.nn import functional as F

        both = zip(self.logs(outputs, batch), batch.targets.T, strict=True)
        return Loss(sum(F.nll_loss(logs, targets, reduction="sum") for logs, targets in both) / 2, batch.size)

    def judge(self, outputs, batch, base):
        import torch

        found = []
        for places, mask, *both in zip(batch.inputs["places"], batch.inputs["attention_mask"].bool(),
                                       *self.logs(outputs, batch), strict=True):
            start, end = (logs[mask] for logs in both)
            null = places.index(NOTHING)
            nothing = float(start[null] + end[null])
            start[null] = end[null] = float("-inf")
            spans = start[:, None] + end[None, :]
            allowed = torch.ones_like(spans, dtype=torch.bool).triu().tril(self.options.max_answer_length - 1)
            spans = spans.masked_fill(~allowed, float("-inf"))
            first, last = divmod(int(spans.argmax()), len(places))
            value = float(spans[first, last])
            found.append({"start": places[first][0], "end": places[last][1], "log": value, "null": nothing})
        return found

    def merge(self, parts, row, base):
        """The likeliest span of all windows, against the window where no answer is least likely."""
        best = max(parts, key=lambda part: part["log"])
        null = min(part["null"] for part in parts)
        return self.answer(row["context"], best["start"], best["end"], best["log"], null)

    def answer(self, context, start, end, log, null):
        from math import exp

        if self.options.unanswerable and null - log > self.options.null_threshold:
            return {"answer": "", "start": None, "end": None, "score": exp(null)}
        text = context[start:end]
        start += len(text) - len(text.lstrip())  # pieces of some tokenizers begin with the blank before them
        return {"answer": text.strip(), "start": start, "end": start + len(text.strip()), "score": exp(log)}

    def score(self, predictions, rows, base):
        """exact_match and f1 as SQuAD defines them, from 0 to 1."""
        found = [squad(prediction["answer"], tuple(text for text, _ in answers_of(row["answers"], row["context"])))
                 for prediction, row in zip(predictions, rows, strict=True)]
        return {name: sum(one[name] for one in found) / len(found) for name in ("exact_match", "f1")}

    def usage(self, repo, base):
        return USAGE.replace("{repo}", repo)

    def sample(self, count):
        people, places = ("Ada", "Tom Brown", "Mia", "Sam"), ("Rome", "New York", "Paris")
        rows = []
        for index in range(count):
            who, where = people[index % 4], places[index % 3]
            context = f"It was late. {who} lives in {where}, near the river."
            text = where if index % 2 else who
            rows.append({"question": f"Where does {who} live?" if index % 2 else f"Who lives in {where}?", "context": context,
                         "answers": {"text": [text], "answer_start": [context.index(text)]}})
        return rows

    def gold(self, row, base):
        answers = answers_of(row["answers"], row["context"])
        if not answers:
            return {"answer": "", "start": None, "end": None, "score": 1.0}
        return self.answer(row["context"], answers[0][1], answers[0][1] + len(answers[0][0]), 0.0, float("-inf"))


@hookimpl
def hubtune_tasks():
    return [QuestionAnswering]
