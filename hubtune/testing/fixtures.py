"""Rows to try a task on, and the right answers to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hubtune.errors import DataError

if TYPE_CHECKING:
    from hubtune.contract import Base, Prediction, Row, Task


class TaskFixture(ABC):
    """Test data of a task, for the conformance kit and for `hubtune plugins --check`."""

    @abstractmethod
    def sample(self, task: Task[Any], count: int) -> list[dict[str, Any]]:
        """Return labelled rows that can be learnt, by role, the same at every call."""

    @abstractmethod
    def gold(self, task: Task[Any], row: Row, base: Base) -> Prediction:
        """Return the prediction that a labelled row deserves; no other may score better."""


def fixture_for(task: Task[Any]) -> TaskFixture:
    """Return the fixture that a task names as `module:class`. Raises DataError where it names none."""
    if task.fixture is None:
        raise DataError(f"the task '{task.name}' names no rows to try it on.",
                        hint='Say fixture = "module:class", a hubtune.testing.TaskFixture.')
    module, _, name = task.fixture.partition(":")
    fixture: TaskFixture = getattr(import_module(module), name)()
    return fixture
