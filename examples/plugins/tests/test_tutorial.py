"""hubtune's conformance kit on the plugins of the tutorial."""

from hubtune_levels import Levels
from hubtune_vectors import Vectors

from hubtune.testing import StrategyConformance, TaskConformance


class TestLevels(TaskConformance):
    plugin = Levels
    options = {"order": ["low", "medium", "high"]}

    def sample(self, task, count):
        texts = ("all is well", "please look at it soon", "it broke, come at once")
        return [{"text": f"{texts[n % 3]}, room {n}", "label": task.options.order[n % 3]} for n in range(count)]

    def gold(self, task, row, base):
        level = task.level(row)
        return {"label": row["label"], "level": level, "expected": float(level)}


class TestVectors(StrategyConformance):
    plugin = Vectors
    model = "roberta"
