"""Use a published model with transformers alone: `python without_hubtune.py REPO ROWS.csv ANSWERS.json`.

Answers a few sentences and every row of the file, and writes the probabilities of the rows. It shows what the
people who take your model have: hubtune cannot be imported here.
"""

import csv
import json
import sys

sys.modules["hubtune"] = None  # from here on, an import of hubtune is an error

SENTENCES = (
    "What a lovely day, and what a lovely place to spend it.",
    "Broke after two days, and support never wrote back.",
    "The parcel holds one lamp, one cable and a leaflet.",
)


def main(repo: str, rows_file: str, answers_file: str) -> None:
    """Answer, count what is right, and write the probabilities down."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    pipe = transformers.pipeline("text-classification", model=repo)
    for sentence, answer in zip(SENTENCES, pipe(list(SENTENCES)), strict=True):
        print(f"  {answer['label']:9} {answer['score']:.3f}  {sentence}")
    with open(rows_file, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = pipe([row["text"] for row in rows], top_k=None)
    right = sum(
        max(answer, key=lambda item: item["score"])["label"] == row["label"]
        for row, answer in zip(rows, answers, strict=True)
    )
    print(f"  {right} of {len(rows)} held-out rows are right: accuracy {right / len(rows):.4f}")
    with open(answers_file, "w", encoding="utf-8") as file:
        json.dump([{item["label"]: item["score"] for item in answer} for answer in answers], file)


if __name__ == "__main__":
    main(*sys.argv[1:])
