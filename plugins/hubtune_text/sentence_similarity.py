"""Sentence similarity: one vector per text, near to another where the texts mean the same or belong together."""

from dataclasses import dataclass

from hubtune_labels.kinds import numbers
from hubtune_labels.scores import number_scores

from hubtune import Batch, Column, DataError, Loss, Metric, ModelError, Setup, Task, exact, hookimpl, label_text, option
from hubtune_text.embeddings import pool, pooling_for, sentence_transformers_files, snippet
from hubtune_text.ranking import ranking_scores
from hubtune_text.texts import pad, pad_token, tokenise

NEEDED = {"graded": ("text_pair", "label"), "pairs": ("text_pair",), "labels": ("label",)}
SCORES = {
    "graded": ("spearman", "pearson"),
    "pairs": ("recall@1", "recall@10", "ndcg@10", "mrr"),
    "labels": ("recall@1", "recall@5", "ndcg@10"),
}


@dataclass(frozen=True)
class SimilarityOptions:
    kind: str = option("auto", "pairs of texts with a score, pairs that belong together, or texts with a label",
                       choices=("auto", "graded", "pairs", "labels"))
    pooling: str = option("auto", "what makes the vector; auto: mean, and last for causal models",
                          choices=("auto", "mean", "cls", "last"))
    temperature: float = option(0.05, "what cosines are divided by in the loss")


class SentenceSimilarity(Task[SimilarityOptions]):
    """One vector per text; the cosine of two says how alike the texts are.

    graded: two texts and a number; CoSENT, a loss over the order of all pairs of a step (Su, kexue.fm/archives/8847).
    pairs: a query and what answers it; all other second texts of a step are negatives (Henderson et al.,
    arXiv:1705.00652). labels: a text and its class; another text of the class, drawn anew in every epoch, makes the
    pair. What is known to match is never a negative.

    Retrieval is `pairs` of a question and a passage. Recommendation is `pairs` of an item (or a user's last items, as
    one text) and the item that was chosen next; both rank by the vectors' cosines.
    """

    contract = 1
    name = "sentence-similarity"
    summary = "vectors of texts, for similarity, search, retrieval and recommendation"
    model = "AutoModel"
    pipeline_tag = "sentence-similarity"
    metric = Metric("spearman")
    additive = False
    Options = SimilarityOptions
    columns = (
        Column("text", ("text", "sentence1", "anchor", "query", "question", "question1", "text1", "premise", "sentence",
                        "sentence_a", "utterance", "content", "passage", "document")),
        Column("text_pair", ("text_pair", "sentence2", "positive", "passage", "answer", "question2", "text2", "hypothesis",
                             "sentence_b", "response", "document", "context"), needed="never"),
        Column("label", ("score", "similarity", "similarity_score", "relatedness_score", "label", "labels", "intent",
                         "category", "class", "label_name"), kind="label", needed="never"),
    )
    kind = None
    """What the rows teach: of the run, or those that were encoded last; None where none said it."""
    groups: dict = {}
    """The encoded texts of each label of the rows that were encoded last."""
    ranked: dict = {}
    """What score found for a prediction, by its id, and the prediction."""

    def kind_of(self, rows):
        """What rows teach: as chosen, else by their columns; None for texts alone."""
        if self.options.kind != "auto":
            return self.options.kind
        pair, label = (rows[0].get(role) is not None for role in ("text_pair", "label"))
        return ("graded" if label else "pairs") if pair else "labels" if label else None

    def checked(self, rows, split):
        """The kind of rows, once it is sure that they can be learnt from and scored."""
        kind = self.kind_of(rows)
        missing = [role for role in NEEDED.get(kind, ("label",)) if rows[0].get(role) is None]
        if missing:
            raise DataError(
                f"{split} has texts and nothing that says which are alike: no {' and no '.join(missing)}.",
                hint="Needed are two texts and a score, two texts that belong together, or a text and a label: "
                f"--set data.{missing[0]}=COLUMN",
            )
        if kind == "graded":
            try:
                numbers([row["label"] for row in rows], split)
            except DataError as error:
                raise DataError(error.message, hint="A score is a number. For pairs that all belong together: "
                                "--set task.kind=pairs") from None
        return kind

    def inspect(self, splits):
        kinds = {split: self.checked(rows, split) for split, rows in splits.items()}
        role = "text_pair" if kinds["train"] == "pairs" else "label"
        values = [label_text(row[role]) for row in splits["train"]]
        if len(set(values)) < 2:
            raise DataError(f"every row of train has the same {role}, {values[0]!r}: nothing to tell apart.",
                            hint=f"Is this the right column? Choose another with: --set data.{role}=COLUMN")
        if kinds["train"] == "labels" and len(set(values)) == len(values):
            raise DataError(f"no two of the {len(values)} rows of train share a label, such as {values[0]!r}.",
                            hint="A label needs two texts. For two texts a row: --set data.text_pair=COLUMN")
        return {"kind": kinds["train"]}

    def configure(self, facts, base):
        if self.options.temperature <= 0:
            raise DataError(f"task.temperature is more than 0, not {self.options.temperature}.", hint="Usual is 0.05.")
        self.kind = facts.get("kind") or (None if self.options.kind == "auto" else self.options.kind)
        self.pooling = pooling_for(base.config) if self.options.pooling == "auto" else self.options.pooling
        return Setup(pad_token(base), base.processor)

    def metric_of(self, base):
        return Metric(SCORES[self.kind or "graded"][0])

    def encode(self, rows, base):
        kind = self.kind_of(rows) if len(rows) else None
        self.kind = kind or self.kind
        sides = ("text", "text_pair") if len(rows) and kind != "labels" and "text_pair" in rows[0] else ("text",)
        encoded = [tokenise(base, [row[side] for row in rows], None) if len(rows) else [] for side in sides]
        labels = [label_text(row["label"]) for row in rows] if kind == "labels" and "label" in rows[0] else None
        if labels:
            self.gather([row["text"] for row in rows], labels, encoded[0], base)
        for index, row in enumerate(rows):
            example = {"texts": [side[index] for side in encoded]}
            if labels:
                example |= {"keys": [key(labels[index])] * 2, "text": row["text"], "group": self.groups[labels[index]]}
            elif kind == "pairs" and len(sides) == 2:
                example["keys"] = [key(row[side]) for side in sides]
            elif kind == "graded" and row.get("label") is not None:
                example["score"] = float(row["label"])
            yield [example]

    def gather(self, texts, labels, encoded, base):
        """The texts of each label, shared by their examples, so that a draw can be any of them without a copy.

        Rows that are too long are encoded a second time, cut: they replace the first ones, in every example.
        """
        if base.max_length is None or any(t not in self.groups.get(k, ()) for t, k in zip(texts, labels, strict=True)):
            self.groups = {label: {} for label in labels}
        for text, label, tokens in zip(texts, labels, encoded, strict=True):
            self.groups[label][text] = tokens

    def size(self, example):
        return 2 * self.length(example)

    def length(self, example):
        return max(len(text["input_ids"]) for text in example["texts"])

    def collate(self, examples, base, draws):
        """The texts of all examples in one batch: (examples * 2, longest), an example's two after each other."""
        import torch

        texts = [list(example["texts"]) for example in examples]
        if draws is not None and "group" in examples[0]:
            for found, example, draw in zip(texts, examples, draws, strict=True):
                others = [text for text in example["group"] if text != example["text"]]
                found.append(example["group"][draw.random().choice(others)] if others else found[0])
        inputs = pad(base, [text for found in texts for text in found])
        if base.config.is_encoder_decoder:  # its encoder is what we use; the decoder is given the least it takes
            start = getattr(base.config, "decoder_start_token_id", None)
            inputs["decoder_input_ids"] = torch.full_like(inputs["input_ids"][:, :1], start or 0)
        targets = None
        if all("score" in example for example in examples):
            targets = torch.tensor([example["score"] for example in examples])
        elif len(texts[0]) == 2 and all("keys" in example for example in examples):
            targets = torch.tensor([example["keys"] for example in examples])
        return Batch(inputs, targets, len(examples))

    def represent(self, outputs, batch):
        """Unit vectors of an example's texts, (examples, 1 or 2, hidden size)."""
        from torch.nn.functional import normalize

        hidden = getattr(outputs, "encoder_last_hidden_state", None)
        hidden = getattr(outputs, "last_hidden_state", None) if hidden is None else hidden
        if hidden is None or hidden.ndim != 3:
            raise ModelError("it gives no state for each token, of which a text's vector could be made.",
                             hint="Take a text encoder or a causal model. See: hubtune show MODEL")
        vectors = pool(exact(hidden), batch.inputs["attention_mask"], self.pooling)
        return normalize(vectors, dim=-1).unflatten(0, (batch.size, -1))

    def loss_over(self, representations, batches):
        import torch

        targets = torch.cat([batch.targets for batch in batches])
        first, second = (representations / self.options.temperature**0.5).unbind(1)
        rows = len(targets)
        if targets.is_floating_point():
            cosines = (first * second).sum(-1)
            wrong = (cosines[:, None] - cosines)[targets[:, None] < targets]  # how much a worse pair lies above a better
            mean = torch.cat([cosines.new_zeros(1), wrong]).logsumexp(0)
        else:
            matches = (targets[:, None] == targets).any(-1).fill_diagonal_(False)
            with torch.autocast(first.device.type, enabled=False):  # in half precision near texts become equal
                cosines = (first @ second.T).masked_fill(matches, float("-inf"))
            mean = torch.nn.functional.cross_entropy(cosines, torch.arange(rows, device=cosines.device))
        return Loss(mean * rows, rows)

    def judge(self, outputs, batch, base):
        vectors = self.represent(outputs, batch).float().cpu()
        if vectors.shape[1] == 1:
            return [{"embedding": vector} for vector in vectors[:, 0].tolist()]
        cosines = (vectors[:, 0] * vectors[:, 1]).sum(-1).tolist()
        return [{"similarity": cosine, "embedding": one, "embedding_pair": other}
                for cosine, (one, other) in zip(cosines, vectors.tolist(), strict=True)]

    def show(self, prediction):
        return {"similarity": prediction["similarity"]} if "similarity" in prediction else prediction

    def score(self, predictions, rows, base):
        """Correlations, or retrieval among the rows: each text against all second texts, or against all other texts.

        A query's rank is found once, among all rows, and remembered with its prediction: resampled rows are resampled
        queries over the same documents. Resampled documents would be found as their own copies.
        """
        kind = self.checked(rows, "the data")
        if kind == "graded":
            scores = number_scores([float(row["label"]) for row in rows], [p["similarity"] for p in predictions])
            return {name: scores[name] for name in SCORES[kind]}
        if any(id(prediction) not in self.ranked for prediction in predictions):
            found = ranked_pairs(predictions, rows) if kind == "pairs" else ranked_labels(predictions, rows)
            self.ranked = {id(p): (scores, p) for p, scores in zip(predictions, found, strict=True)}
        known = [scores for p in predictions if (scores := self.ranked[id(p)][0])]
        return {name: sum(scores[name] for scores in known) / max(1, len(known)) for name in SCORES[kind]}

    def usage(self, repo, base):
        return snippet(repo, self.pooling, base.config.is_encoder_decoder)

    def files(self, base):
        return sentence_transformers_files(base.config, self.pooling)

    def sample(self, count):
        things, states = ("kettle", "train", "garden", "film", "phone"), ("new", "broken", "lovely", "late")
        rows = []
        for index in range(count):
            thing, state = things[index % 5], states[index % 4]
            other, changed = things[(index + index // 7 % 2) % 5], states[(index + index // 3 % 2) % 4]
            rows.append({"text": f"The {thing} is {state}.", "text_pair": f"My {other} was {changed}, I think.",
                         "label": 3.0 * (thing == other) + 2.0 * (state == changed)})
        return rows

    def gold(self, row, base):
        """The true score; or vectors that are equal where the texts match, and random else."""
        from random import Random

        kind = self.kind_of([row])
        if kind == "graded":
            return {"similarity": float(row["label"])}
        draw = Random(label_text(row["label"]) if kind == "labels" else row["text_pair"])
        vector = [draw.gauss(0, 0.1) for _ in range(100)]
        length = sum(value**2 for value in vector) ** 0.5
        vector = [value / length for value in vector]
        return {"embedding": vector} if kind == "labels" else {
            "similarity": 1.0, "embedding": vector, "embedding_pair": vector}


def key(text):
    """A number that stands for a text: 63 bits of its hash."""
    from hashlib import blake2b

    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1


def ranked_pairs(predictions, rows):
    """Each text against the different second texts; what any row pairs it with is relevant."""
    import numpy as np

    documents = {row["text_pair"]: index for index, row in reversed(list(enumerate(rows)))}
    place = {index: number for number, index in enumerate(documents.values())}
    relevant = {}
    for row in rows:
        relevant.setdefault(row["text"], set()).add(place[documents[row["text_pair"]]])
    found = {text: np.array(sorted(places)) for text, places in relevant.items()}
    return ranking_scores(
        np.array([p["embedding"] for p in predictions], dtype="float32"),
        np.array([predictions[index]["embedding_pair"] for index in documents.values()], dtype="float32"),
        [found[row["text"]] for row in rows],
    )


def ranked_labels(predictions, rows):
    """Each text against all others; those of its label are relevant. A label's only text counts nowhere."""
    import numpy as np

    labels = np.array([label_text(row["label"]) for row in rows])
    members = {label: np.flatnonzero(labels == label) for label in set(labels.tolist())}
    vectors = np.array([p["embedding"] for p in predictions], dtype="float32")
    return ranking_scores(vectors, vectors, [members[label] for label in labels.tolist()], own=range(len(rows)))


@hookimpl
def hubtune_tasks():
    return [SentenceSimilarity]
