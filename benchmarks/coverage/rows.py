"""Rows that a tiny model can learn in a few steps, by task: of unequal length, and of two classes."""

from __future__ import annotations

from typing import Any

GOOD = ("a great film", "i loved every minute of it , and so will you", "good food , kind waiter and a fair price .",
        "wonderful", "the best phone i have had", "it is quite good for the price , and the battery lasts long .")
BAD = ("an awful waste of time", "cold", "terrible service and a rude waiter who did not care at all .",
       "it broke after two days !", "i would not buy it again", "the plot is dull and the actors look bored .")


def texts() -> list[dict[str, Any]]:
    """Texts with a label."""
    return [row for good, bad in zip(GOOD, BAD, strict=True)
            for row in ({"text": good, "label": "good"}, {"text": bad, "label": "bad"})]


def tokens() -> list[dict[str, Any]]:
    """Words with tags of names."""
    people, places = ("Alice", "Bob", "Mary", "John", "Eve", "Tom"), ("Paris", "Berlin", "London", "Rome", "Oslo", "Bern")
    rows = []
    for number, (person, place) in enumerate(zip(people, places, strict=True)):
        words = [person, "lives", "in", place, *["near", "the", "river"] * (number % 3)]
        tags = ["B-PER", "O", "O", "B-LOC", *["O"] * (len(words) - 4)]
        rows += [{"tokens": words, "tags": tags}, {"tokens": ["the", place, "film"], "tags": ["O", "B-LOC", "O"]}]
    return rows


def images() -> list[dict[str, Any]]:
    """Plain images of one colour with stripes, dark or light."""
    import numpy as np
    from PIL import Image

    rows = []
    for number in range(12):
        light = number % 2
        values = np.full((64, 64, 3), 200 if light else 40, np.uint8)
        values[number % 7:: 7] += 20 + number
        rows.append({"image": Image.fromarray(values), "label": "light" if light else "dark"})
    return rows


def sounds() -> list[dict[str, Any]]:
    """Low and high tones at 16 kHz, of 0.6 to 1.1 seconds, with some noise: features of pure tones do not vary."""
    import numpy as np

    rows, noise = [], np.random.default_rng(0)
    for number in range(12):
        high = number % 2
        seconds = np.arange(int(16000 * (0.6 + 0.1 * (number // 2)))) / 16000
        wave = 0.5 * np.sin(2 * np.pi * (1500 if high else 200 + 10 * number) * seconds) + 0.01 * noise.standard_normal(len(seconds))
        rows.append({"audio": {"array": wave.astype(np.float32), "sampling_rate": 16000},
                     "label": "high" if high else "low"})
    return rows


def prompts() -> list[dict[str, Any]]:
    """Prompts with an answer of one word or two."""
    answers = {"good": GOOD, "not good": BAD}
    return [{"prompt": text, "completion": answer} for pair in zip(GOOD, BAD, strict=True)
            for answer, text in zip(answers, pair, strict=True)]


TASKS = {
    "text-classification": (("text", "text+"), texts),
    "token-classification": (("text", "text+"), tokens),
    "image-classification": (("image",), images),
    "audio-classification": (("audio",), sounds),
    "text-generation": (("text", "text+"), prompts),
}
"""Kinds of architectures that a task is tried on, as the makers of tiny models name them; and its rows."""
MAPPINGS = {"text-generation": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"}
"""Tasks for which an architecture needs a class of transformers, and the list of these in `modeling_auto`."""
