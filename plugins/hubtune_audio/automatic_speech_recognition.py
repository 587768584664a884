"""Speech recognition by connectionist temporal classification, CTC (Graves et al., ICML 2006): speech as text."""

from dataclasses import dataclass
from types import SimpleNamespace

from hubtune import Batch, Column, DataError, Loss, Metric, Setup, exact, hookimpl, option, row_numbers
from hubtune_audio.characters import CASES, processor_of, settled, spoken
from hubtune_audio.sounds import AUDIO, SoundTask, examples_of, frames_of, inputs_of, output_lengths, tone


@dataclass(frozen=True)
class SpeechOptions:
    casing: str = option("auto", "how text is written; auto: as the model's vocabulary does, lower for a new one",
                         choices=("auto", "lower", "upper", "keep"))
    punctuation: str = option("drop", "what becomes of punctuation, which no voice says", choices=("drop", "keep"))


class SpeechRecognition(SoundTask):
    """Speech as text, by CTC over characters, or over the tokens that the model came with."""

    contract = 1
    name = "automatic-speech-recognition"
    summary = "speech as text, by CTC"
    model = "AutoModelForCTC"
    pipeline_tag = "automatic-speech-recognition"
    metric = Metric("wer", higher_is_better=False)
    needs = ("soundfile", "soxr", "jiwer")
    Options = SpeechOptions
    columns = (
        AUDIO,
        Column("text", ("transcription", "text", "sentence", "transcript", "normalized_text"), needed="train"),
    )

    def inspect(self, splits):
        rows = splits["train"]
        texts = [spoken(row["text"], self.options.punctuation) for row in rows]
        frames = frames_of([row["audio"] for row in rows], 16000)
        empty = [row for row, text in enumerate(texts) if not text]
        long = [row for row, text in enumerate(texts) if len(text) > frames[row]]
        for bad, what in ((empty, "have a transcription without a letter"),
                          (long, "have more letters than frames of sound (20 ms), so that CTC cannot learn them")):
            if bad:
                raise DataError(f"{len(bad)} of {len(rows)} rows {what}: {row_numbers(bad)} of train.",
                                hint="Does each text belong to its sound? Correct these rows or take them out.")
        return {"characters": sorted(set("".join(texts)) - {" "})}

    def configure(self, facts, base):
        tokenizer, self.case, kept = settled(base, facts, self.options.casing)
        self.blank = tokenizer.pad_token_id
        size = max(tokenizer.get_vocab().values()) + 1
        if kept and base.config.vocab_size >= tokenizer.vocab_size:
            size = base.config.vocab_size  # a head that is trained keeps its size, which may leave out added tokens
        return Setup({"pad_token_id": self.blank, "vocab_size": size}, processor_of(base, tokenizer))

    def written(self, text):
        """A transcription as the model is to write it."""
        return CASES[self.case](spoken(text, self.options.punctuation))

    def encode(self, rows, base):
        for row, example in zip(rows, examples_of(rows, base), strict=True):
            if row.get("text") is not None:
                ids = base.processor.tokenizer(self.written(row["text"]), add_special_tokens=False).input_ids
                example = {**example, "ids": ids}
            yield [example]

    def collate(self, examples, base, draws):
        import torch

        targets = None
        if all("ids" in example for example in examples):
            ids = [torch.tensor(example["ids"], dtype=torch.long) for example in examples]
            targets = {"ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
                       "lengths": torch.tensor([len(each) for each in ids])}
        return Batch(inputs_of(examples, base, draws), targets, len(examples))

    def count(self, batch):
        """Characters: the loss is in nats per character, whatever the length of the texts."""
        return {"loss": float(batch.targets["lengths"].sum())}

    def forward(self, model, batch):
        import torch

        logits = super().forward(model, batch).logits
        lengths = output_lengths(model, batch.inputs.get("attention_mask"), logits.shape[1])
        whole = torch.full((len(logits),), logits.shape[1], device=logits.device)
        return SimpleNamespace(logits=logits, lengths=whole if lengths is None else lengths)

    def loss(self, outputs, batch):
        from torch.nn import functional as F

        each = F.ctc_loss(exact(outputs.logits).log_softmax(-1).transpose(0, 1), batch.targets["ids"], outputs.lengths,
                          batch.targets["lengths"], blank=self.blank, reduction="none", zero_infinity=True)
        return Loss(each.sum(), self.count(batch)["loss"])

    def judge(self, outputs, batch, base):
        best = outputs.logits.argmax(-1).tolist()
        decode = base.processor.tokenizer.decode
        return [{"text": decode(ids[:length])} for ids, length in zip(best, outputs.lengths.tolist(), strict=True)]

    def score(self, predictions, rows, base):
        import jiwer

        gold, found = [self.written(row["text"]) for row in rows], [p["text"] for p in predictions]
        return {"wer": float(jiwer.wer(gold, found)), "cer": float(jiwer.cer(gold, found))}

    def sample(self, count):
        import random

        draw, pitches = random.Random(0), {"a": 200.0, "b": 800.0, "c": 3200.0}
        texts = ["".join(draw.sample("abc", 2 + row % 2)) for row in range(count)]
        return [{"audio": tone(draw, [pitches[letter] for letter in text]), "text": text} for text in texts]

    def gold(self, row, base):
        return {"text": self.written(row["text"])}


@hookimpl
def hubtune_tasks():
    return [SpeechRecognition]
