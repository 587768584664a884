"""Text to text with an encoder and a decoder: translation, summarisation and other rewriting."""

from dataclasses import dataclass

from hubtune import Batch, Column, Loss, Metric, ModelError, Setup, Task, hookimpl, option
from hubtune_generation import sequences
from hubtune_generation.chat import IGNORED, prepare
from hubtune_generation.scores import text_scores


@dataclass(frozen=True)
class RewritingOptions:
    prefix: str = option("", "what stands before every text, such as T5's `summarize: `")
    max_new_tokens: int = option(128, "the longest text that is written for a row")
    num_beams: int = option(1, "how many beginnings are kept while a text is written; 1: greedy")
    source_lang: str = option("", "for models of many languages: that of the text, as the tokenizer calls it")
    target_lang: str = option("", "for models of many languages: that of the target, as the tokenizer calls it")
    words: str = option("auto", "how BLEU and ROUGE tell words apart", choices=("auto", "13a", "zh", "char"))


class Text2TextGeneration(Task[RewritingOptions]):
    """A target text for every text."""

    contract = 1
    name = "text2text-generation"
    summary = "a text from a text by an encoder and a decoder: translation, summaries"
    model = "AutoModelForSeq2SeqLM"
    pipeline_tag = "text2text-generation"
    input = "text"
    metric = Metric("loss", higher_is_better=False)
    Options = RewritingOptions
    needs = ("sacrebleu", "torchmetrics")
    extra = "hubtune[generation]"
    resamples = 50  # chrF of many texts takes its time
    columns = (
        Column("text", ("text", "source", "document", "article", "dialogue", "src", "input", "inputs", "en",
                        "question")),
        Column("target", ("target", "targets", "summary", "highlights", "abstract", "translation", "output", "tgt",
                          "title", "headline", "answer", "zh", "de", "fr", "es", "ru", "ja", "ro"), needed="train"),
    )

    def configure(self, facts, base):
        processor, options = base.processor, self.options
        prepare(processor)
        for name, language in (("src_lang", options.source_lang), ("tgt_lang", options.target_lang)):
            if language:
                if not hasattr(processor, name) or self.language(base, language) in (None, processor.unk_token_id):
                    raise ModelError(f"its tokenizer knows no language {language!r}.", where=base.repo,
                                     hint="Leave task.source_lang and task.target_lang out, or name one of its own.")
                setattr(processor, name, language)
        return Setup(processor=processor)

    def language(self, base, name):
        """The id of a language's token."""
        own = getattr(base.processor, "get_lang_id", None)
        return own(name) if own else base.processor.convert_tokens_to_ids(name)

    def start(self, base):
        """What the decoder begins with: as its configuration says, else the target's language, else the first mark."""
        if self.options.target_lang and not self.forced(base):
            return self.language(base, self.options.target_lang)
        text = base.config.get_text_config(decoder=True)
        known = (getattr(base.config, "decoder_start_token_id", None), getattr(text, "decoder_start_token_id", None),
                 base.processor.bos_token_id, base.processor.pad_token_id, base.processor.eos_token_id)
        return next(token for token in known if token is not None)

    def forced(self, base):
        """What the first written token must be, for generate: the language, where targets begin with it."""
        if not self.options.target_lang:
            return {}
        language = self.language(base, self.options.target_lang)
        return {"forced_bos_token_id": language} if base.processor(text_target="a").input_ids[0] == language else {}

    def encode(self, rows, base):
        cut = {"truncation": base.max_length is not None, "max_length": base.max_length, "verbose": False}
        for row in rows:
            example = {"input_ids": base.processor(self.options.prefix + row["text"], **cut).input_ids}
            if row.get("target") is not None:
                labels = list(base.processor(text_target=row["target"], **cut).input_ids)
                end = base.processor.eos_token_id
                if end is not None and end not in labels[-2:]:  # some put the language last
                    labels = [*labels[: len(labels) - (len(labels) == base.max_length)], end]
                example["labels"] = labels
            yield [example]

    def size(self, example):
        return len(example["input_ids"]) + len(example.get("labels", ()))

    def length(self, example):
        return max(len(example["input_ids"]), len(example.get("labels", ())))

    def collate(self, examples, base, draws):
        import torch

        ids, mask = sequences.padded(base, [example["input_ids"] for example in examples])
        first, targets = torch.full((len(examples), 1), self.start(base)), None
        if all("labels" in example for example in examples):
            labels, _ = sequences.padded(base, [example["labels"] for example in examples], IGNORED)
            before, _ = sequences.padded(base, [example["labels"] for example in examples])
            first, targets = torch.cat([first, before[:, :-1]], 1), {"labels": labels}
        return Batch({"input_ids": ids, "attention_mask": mask, "decoder_input_ids": first}, targets, len(examples))

    def count(self, batch):
        return {"loss": float((sequences.labels_of(batch) != IGNORED).sum())}

    def loss(self, outputs, batch):
        labels = sequences.labels_of(batch)
        losses, _ = sequences.token_losses(outputs.logits[:, -labels.shape[1]:], labels)
        return Loss(losses.sum(), self.count(batch)["loss"])

    def judge(self, outputs, batch, base):
        labels = sequences.labels_of(batch)
        return sequences.judged(outputs.logits[:, -labels.shape[1]:], labels)

    def predict(self, model, batch, base):
        most = min(self.options.max_new_tokens, (base.max_length or 10**6) - 1)
        written = model.generate(
            input_ids=batch.inputs["input_ids"], attention_mask=batch.inputs["attention_mask"], max_new_tokens=most,
            num_beams=self.options.num_beams, do_sample=False, decoder_start_token_id=self.start(base),
            pad_token_id=base.processor.pad_token_id, **self.forced(base),
        )
        return [{"text": text.strip()} for text in base.processor.batch_decode(written, skip_special_tokens=True)]

    def score(self, predictions, rows, base):
        scores = sequences.likelihood_scores(predictions)
        del scores["perplexity"]
        if all("text" in prediction for prediction in predictions):
            scores |= text_scores([p["text"] for p in predictions], [row["target"] for row in rows], self.options.words)
        return scores

    def show(self, prediction):
        return sequences.without_counts(prediction)

    def usage(self, repo, base):
        more = "".join(f", {name}={value}" for name, value in self.forced(base).items())
        return ('from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n'
                f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
                f'model = AutoModelForSeq2SeqLM.from_pretrained("{repo}")\n'
                f'inputs = tokenizer("{self.options.prefix}What a lovely day", return_tensors="pt")\n'
                f'written = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], '
                f"max_new_tokens={self.options.max_new_tokens}, num_beams={self.options.num_beams}, "
                f"decoder_start_token_id={self.start(base)}{more})\n"
                "print(tokenizer.decode(written[0], skip_special_tokens=True))")

    def sample(self, count):
        words = ("river", "kettle", "chair", "parcel", "book", "hotel", "film", "soup")
        return [{"text": f"a {words[i % 8]} and a {words[(i // 8 + 3) % 8]}", "target": f"{words[i % 8]} {i // 8 + 1}"}
                for i in range(count)]

    def gold(self, row, base):
        tokens = len(next(iter(self.encode([row], base)))[0]["labels"])
        return {"nll": 0.0, "tokens": tokens, "hits": tokens, "text": row["target"]}


@hookimpl
def hubtune_tasks():
    return [Text2TextGeneration]
