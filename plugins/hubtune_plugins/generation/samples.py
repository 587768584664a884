"""Small made rows that can be learnt, one function per task: what the conformance kit trains and scores on.

Each gives `count` rows by role, the same at every call.
"""

WORDS = ("river", "kettle", "chair", "parcel", "book", "hotel", "film", "soup")


def instructions(count):
    """To say a word so many times, and that."""
    asked = [(WORDS[i % 8], i // 8 + 2) for i in range(count)]
    return [{"prompt": f"Say {word} {times} times.", "completion": " ".join([word] * times)} for word, times in asked]


def preferences(count):
    """The same, and to refuse it."""
    return [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "No."} for row in instructions(count)]


def rewritten(count):
    """Two things, and the first of them with a number."""
    return [{"text": f"a {WORDS[i % 8]} and a {WORDS[(i // 8 + 3) % 8]}", "target": f"{WORDS[i % 8]} {i // 8 + 1}"}
            for i in range(count)]
