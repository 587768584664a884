"""Question answering: the span of a text that answers a question about it."""

from dataclasses import dataclass

from hubtune import Batch, Column, Loss, Metric, hookimpl, option
from hubtune_text import answers, samples, usages
from hubtune_text.answers import NOTHING, answers_of
from hubtune_text.texts import TextTask, targets_of
from hubtune_text.windows import padded_windows, windows


@dataclass(frozen=True)
class AnsweringOptions:
    stride: int = option(128, "tokens that neighbouring windows of a long context share")
    max_answer_length: int = option(30, "tokens of an answer at most")
    unanswerable: bool = option(False, "some questions have no answer in their context: no answers in training, and an "
                                "empty one where that is likelier than any span")
    null_threshold: float = option(0.0, "how much likelier, as a difference of log-probabilities, no answer must be")


class QuestionAnswering(TextTask):
    """The likeliest span of the context: its first and its last token are learnt (Devlin et al., arXiv:1810.04805)."""

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
            answers.refuse_misplaced(rows, split, self.options.unanswerable)
        return {}

    def encode(self, rows, base):
        rows = list(rows)
        questions, contexts = [row["question"].strip() for row in rows], [row["context"] for row in rows]
        for row, examples in zip(rows, windows(base, questions, contexts, self.options.stride), strict=True):
            right = None if row.get("answers") is None else answers_of(row["answers"], row["context"])
            for example in examples:
                ids, places = list(example["input_ids"]), example["places"]
                null = ids.index(base.processor.cls_token_id) if base.processor.cls_token_id in ids else 0
                if right is not None:
                    example["target"] = (right and answers.span_in(places, *right[0])) or (null, null)
                places[null] = NOTHING
            yield examples

    def collate(self, examples, base, draws):
        inputs, targets = padded_windows(base, examples), targets_of(examples)
        if targets is not None:
            targets = targets + inputs["attention_mask"].argmax(1, keepdim=True)  # of models that pad on the left
        return Batch(inputs, targets, len(examples))

    def logs(self, outputs, batch):
        return answers.span_logs(outputs, batch.inputs["attention_mask"], batch.inputs["places"])

    def loss(self, outputs, batch):
        from torch.nn.functional import nll_loss

        both = zip(self.logs(outputs, batch), batch.targets.T, strict=True)
        return Loss(sum(nll_loss(logs, targets, reduction="sum") for logs, targets in both) / 2, batch.size)

    def judge(self, outputs, batch, base):
        rows = zip(batch.inputs["places"], batch.inputs["attention_mask"].bool(), *self.logs(outputs, batch), strict=True)
        most = self.options.max_answer_length
        return [answers.likeliest(places, start[mask], end[mask], most) for places, mask, start, end in rows]

    def merge(self, parts, row, base):
        """The likeliest span of all windows, against the window where no answer is least likely."""
        best, null = max(parts, key=lambda part: part["log"]), min(part["null"] for part in parts)
        if self.options.unanswerable and null - best["log"] > self.options.null_threshold:
            return answers.no_answer(null)
        return answers.answer(row["context"], best["start"], best["end"], best["log"])

    def score(self, predictions, rows, base):
        return answers.squad_scores(predictions, rows)

    def usage(self, repo, base):
        return usages.answering(repo)

    def sample(self, count):
        return samples.asked(count)

    def gold(self, row, base):
        for text, start in answers_of(row["answers"], row["context"]):
            return answers.answer(row["context"], start, start + len(text), 0.0)
        return answers.no_answer(0.0)


@hookimpl
def hubtune_tasks():
    return [QuestionAnswering]
