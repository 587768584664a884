"""A race: each strategy on each model once, at the default settings. It needs no further package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hubtune import files
from hubtune.sweeps.trials import Trial


class Race:
    """Trials in a fixed order, kept in `race.json`; those that a killed process began are begun again."""

    method = "race"

    def __init__(self, folder: Path, models: Sequence[str], strategies: Sequence[str]) -> None:
        self.path = folder / "race.json"
        self.pairs = [(model, strategy) for model in models for strategy in strategies]
        self.known: dict[int, Trial] = {}
        if self.path.exists():
            listed = json.loads(self.path.read_text(encoding="utf-8"))
            self.known = {one["number"]: Trial.of_dict(one) for one in listed}

    def ask(self) -> Trial | None:
        for number, (model, strategy) in enumerate(self.pairs):
            if number not in self.known or self.known[number].state == "interrupted":
                return Trial(number, model, strategy)
        return None

    def report(self, trial: Trial, score: float) -> None:
        pass

    def tell(self, trial: Trial) -> None:
        self.known[trial.number] = trial
        files.write_atomically(self.path, json.dumps([one.as_dict() for one in self.trials()]) + "\n")

    def trials(self) -> list[Trial]:
        return [self.known[number] for number in sorted(self.known)]
