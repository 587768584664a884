"""Scripts of the peers, and hubtune beside them, on a few rows of the real data."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.whole import __main__ as command
from benchmarks.whole import data, measured
from benchmarks.whole.table import ROWS, Row

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


QUICK = ("banking77", "wnut17")
"""Rows whose peers train in some seconds; `python -m benchmarks.whole --quick` runs all."""


@pytest.mark.parametrize(
    ("row", "way"), [(row, way) for row in ROWS for way in row.peers if row.name in QUICK], ids=lambda value: getattr(value, "name", value))
def test_a_peer_trains_on_a_few_rows(row: Row, way: str, cache: Path) -> None:
    if not data.present(row.data):
        pytest.skip(f"the data of {row.name} are not there")
    if not command.available(row):
        pytest.skip(f"the peer of {row.name} is not installed (see python -m benchmarks.whole --help)")
    found = measured.one(row, way, 1, 0, 0.0, cache)
    assert found["steps"] >= 2
    assert found["loss"] > 0
    assert found["seconds"] > found["step_ms"] / 1e3 > 0


def test_hubtune_trains_on_a_few_rows(cache: Path) -> None:
    if not data.present(ROWS[0].data):
        pytest.skip(f"the data of {ROWS[0].name} are not there")
    found = measured.one(ROWS[0], "hubtune", 1, 0, 0.0, cache)
    assert found["steps"] == 9
    assert found["row_ms"] == pytest.approx(found["step_ms"] / 16)
