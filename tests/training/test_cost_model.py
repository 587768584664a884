"""What a few tried micro-batches say of all: made-up machines, whose true costs are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from hubtune.training.cost_model import Pace, Rung, bytes_of, fitting, growth, ladder, overhead, pace

SIZES = np.array([5, 6, 8, 9, 17, 30, 61, 128])


@pytest.mark.parametrize(("step", "micro_batch", "token"), [(0.0, 0.02, 0.0002), (0.3, 0.065, 0.0013), (0.0001, 0.0, 1e-6)])
def test_the_pace_is_that_of_the_machine(step: float, micro_batch: float, token: float) -> None:
    def seconds(micro_batches: int, tokens: int) -> float:
        return step + micro_batches * micro_batch + tokens * token

    found = pace(seconds(1, 17), seconds(2, 34), seconds(1, 8 * 17), 17, 8)
    assert (found.step, found.micro_batch, found.token) == pytest.approx((step, micro_batch, token), abs=1e-12)
    assert found.of(3, 100) == pytest.approx(seconds(3, 100))


def test_clocks_that_stand_still_or_go_backwards_give_a_plan_all_the_same() -> None:
    for one, two, many in ((0.0, 0.0, 0.0), (1.0, 0.5, 0.2), (1e-9, 5.0, 1e-9)):
        found = pace(one, two, many, 5, 4)
        assert min(found.token, found.times(2.0).token) > 0
        assert 4 <= overhead(found) <= 65536


@pytest.mark.parametrize("tokens", [0.0, 3.0, 55.0, 100.0, 4000.0, 1e9])
def test_the_overhead_is_a_power_of_four_at_most_twice_off(tokens: float) -> None:
    found = overhead(Pace(0.0, tokens * 1e-3, 1e-3))
    assert found in [4**power for power in range(1, 9)]
    assert min(max(tokens, 4), 65536) / 2 <= found <= 2 * min(max(tokens, 4), 65536)


def test_a_noisy_clock_gives_the_same_plan() -> None:
    """MiniLM in fp32: 46 to 60 tokens in eight measurements on a busy machine; in bf16 92 to 110."""
    assert {overhead(Pace(0.0, tokens, 1.0)) for tokens in (46, 50, 60, 92, 110)} == {64}


@pytest.mark.parametrize(("limit", "most", "last"), [(8192, 16, (16, 128)), (512, 16, (4, 128)), (100, 16, (1, 128)), (8192, 1, (1, 128))])
def test_the_ladder_ends_with_the_largest_micro_batch_that_a_run_may_meet(limit: int, most: int, last: Rung) -> None:
    found = ladder(SIZES, limit, most)
    assert found[-1] == last
    assert all(size in SIZES for _, size in found)
    tokens = [count * size for count, size in found]
    assert tokens == sorted(set(tokens))
    dense = ladder(np.arange(5, 129), limit, most)
    assert all(growth(one, other) <= 4 for one, other in pairwise(dense))


def machine(fixed: int, token: int, square: int) -> Callable[[Rung], int]:
    """Bytes of a micro-batch: of the gradient, of every token, and of every pair of tokens of an example."""
    return lambda rung: fixed + rung[0] * (rung[1] * token + rung[1] ** 2 * square)


@pytest.mark.parametrize("square", [0, 1, 50])
@pytest.mark.parametrize("room", [0, 900, 3_000, 20_000, 60_000, 10**6, 10**8])
@pytest.mark.parametrize("is_quick", [True, False])
def test_nothing_is_tried_that_does_not_fit_and_what_fits_is_found(square: int, room: int, is_quick: bool) -> None:
    true, rungs, seen = machine(500, 10, square), ladder(SIZES, 8192, 16), []

    def used(rung: Rung) -> int:
        seen.append(rung)
        return true(rung)

    fits, tried = fitting(rungs, used, room, lambda rung: is_quick, fixed=500)
    assert all(true(rung) <= room for rung in seen[1:])  # the first cannot be known beforehand
    assert tried == [(rung, true(rung)) for rung in seen if true(rung) <= room]
    if fits is None:
        assert true(rungs[0]) > room
        return
    assert true(fits) <= room
    if fits != rungs[-1]:  # at most one rung is given away to caution
        after = rungs[min(len(rungs) - 1, rungs.index(fits) + 2)]
        assert true(after) > room or 500 + (true(fits) - 500) * growth(fits, after) > room


@pytest.mark.parametrize("rung", [(1, 128), (3, 61), (16, 128)])
def test_what_a_micro_batch_will_use_is_on_the_line_through_those_that_were_tried(rung: Rung) -> None:
    true = machine(700, 10, 0)
    two = [(tried, true(tried)) for tried in ((1, 5), (2, 17))]
    assert bytes_of(rung, two) == bytes_of(rung, two[1:], fixed=700) == true(rung)
    assert bytes_of(rung, [], fixed=700) == 700
    assert bytes_of((1, 1), two) == true((2, 17))  # memory that was held once is not less


def test_with_plenty_of_memory_one_try_is_enough_and_a_quick_one_confirms_it() -> None:
    rungs = ladder(SIZES, 8192, 16)

    def used(rung: Rung) -> int:
        return rung[0] * rung[1]

    assert fitting(rungs, used, 10**9, lambda rung: False) == (rungs[-1], [(rungs[0], used(rungs[0]))])
    assert fitting(rungs, used, 10**9, lambda rung: rung[0] <= 4) == (rungs[-1], [(rungs[0], used(rungs[0])), ((4, 128), 512)])


def test_memory_that_is_not_to_be_had_sends_it_down_again() -> None:
    """A device that says there is room, and then has none: what did not fit is not tried again, nor what is larger."""
    rungs, seen = ladder(SIZES, 8192, 16), []

    def used(rung: Rung) -> int | None:
        seen.append(rung)
        return None if rung[0] > 2 else 1

    fits, tried = fitting(rungs, used, 10**9, lambda rung: True)
    assert fits == tried[-1][0] == (2, 128)
    assert len(seen) == len(set(seen))
    assert fitting(rungs, lambda rung: None, 10**9, lambda rung: True) == (None, [])
