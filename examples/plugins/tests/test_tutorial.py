"""hubtune's conformance kit on the plugins of the tutorial."""

from hubtune_levels import Levels
from hubtune_vectors import Vectors

from hubtune.testing import StrategyConformance, TaskConformance


class TestLevels(TaskConformance):
    plugin = Levels
    options = {"order": ["low", "medium", "high"]}


class TestVectors(StrategyConformance):
    plugin = Vectors
    model = "roberta"
