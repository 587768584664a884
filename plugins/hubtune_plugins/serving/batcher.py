"""Dynamic batching: rows that wait are predicted together by one thread, since a model computes one batch at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from hubtune import Prediction, Row
from hubtune_plugins.serving.limits import Limits, Refusal

Predict = Callable[[list[Row]], list[Prediction]]


@dataclass
class Job:
    """Rows of one request, and where their predictions will be."""

    rows: Sequence[Row]
    result: Future[list[Prediction]] = field(default_factory=Future)

    @property
    def keys(self) -> frozenset[str]:
        """The columns of the rows; only rows with the same columns are encoded together."""
        return frozenset(self.rows[0])


class Batcher:
    """A bounded queue of rows and the thread that predicts them."""

    def __init__(self, predict: Predict, limits: Limits) -> None:
        self.predict, self.limits = predict, limits
        self.jobs: deque[Job] = deque()
        self.rows = 0
        """Rows that wait."""
        self.batches = 0
        self.is_open = True
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.work, name="predict", daemon=True)
        self.thread.start()

    def submit(self, rows: Sequence[Row]) -> Future[list[Prediction]]:
        """Queue the rows of a request.

        Raises:
            Refusal: 503, where too many rows wait, or the server stops.
        """
        with self.changed:
            if not self.is_open:
                raise Refusal(503, "the server is stopping.", "Ask again when it has started.", {"Retry-After": "5"})
            if self.jobs and self.rows + len(rows) > self.limits.queue:
                raise Refusal(503, f"{self.rows} rows wait, and {self.limits.queue} may.",
                              "Ask again in a second, or send fewer rows at a time.", {"Retry-After": "1"})
            job = Job(rows)
            self.jobs.append(job)
            self.rows += len(rows)
            self.changed.notify_all()
        return job.result

    def work(self) -> None:
        """Predict what waits until the queue is closed and empty."""
        while jobs := self.take():
            self.answer(jobs)

    def take(self) -> list[Job]:
        """Wait for rows, and a little longer for others to be predicted with them; empty once closed and done."""
        with self.changed:
            while self.is_open and not self.jobs:
                self.changed.wait()
            end = time.monotonic() + self.limits.wait
            while self.is_open and self.rows < self.limits.batch and (left := end - time.monotonic()) > 0:
                self.changed.wait(left)
            return self.pop()

    def pop(self) -> list[Job]:
        """Take the first job and those of the same columns that fit into a batch with it; cancelled ones are dropped."""
        taken: list[Job] = []
        kept: deque[Job] = deque()
        size = 0
        while self.jobs:
            job = self.jobs.popleft()
            fits = not taken or (job.keys == taken[0].keys and size + len(job.rows) <= self.limits.batch)
            if not fits:
                kept.append(job)
                continue
            self.rows -= len(job.rows)
            if job.result.set_running_or_notify_cancel():
                taken.append(job)
                size += len(job.rows)
        self.jobs = kept
        return taken or (self.pop_later() if self.is_open else [])

    def pop_later(self) -> list[Job]:
        """Wait again, where all that waited was cancelled."""
        while self.is_open and not self.jobs:
            self.changed.wait()
        return self.pop() if self.jobs else []

    def answer(self, jobs: Sequence[Job]) -> None:
        """Predict jobs together; where that fails, each alone, so that the rows of one spoil no other's answer."""
        self.batches += 1
        try:
            found = self.predict([row for job in jobs for row in job.rows])
        except BaseException as error:
            if len(jobs) == 1:
                jobs[0].result.set_exception(error)
                return
            for job in jobs:
                self.answer([job])
            return
        first = 0
        for job in jobs:
            job.result.set_result(found[first:first + len(job.rows)])
            first += len(job.rows)

    def close(self, seconds: float) -> None:
        """Take no more rows, and wait so long for the answers of those that are there."""
        with self.changed:
            self.is_open = False
            self.changed.notify_all()
        self.thread.join(seconds)
