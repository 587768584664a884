"""Steps and their cuts, by their properties, on random sizes."""

from __future__ import annotations

import inspect
import itertools
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from hubtune.data.batching import ORDERS, batches_of_rank, evaluation_batches, micro_batches, steps_of_epoch

SEEDS = range(25)


def sizes_of(seed: int, most: int = 120) -> list[int]:
    draw = random.Random(seed)
    return [draw.choice([draw.randint(1, 40), draw.randint(1, 400)]) for _ in range(draw.randint(1, most))]


def cost(batches: Sequence[Sequence[int]], sizes: Sequence[int], overhead: int) -> int:
    """items are positions in sizes"""
    return sum(len(batch) * max(1, max(sizes[i] for i in batch)) + overhead for batch in batches)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_row_is_in_an_epoch_once(order: str, seed: int) -> None:
    sizes, batch_size = sizes_of(seed), 1 + seed % 9
    steps = steps_of_epoch(sizes, batch_size, order, seed, epoch=seed % 3)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(sizes)))
    short = [len(step) for step in steps if len(step) != batch_size]
    assert len(steps) == -(-len(sizes) // batch_size)
    assert short in ([], [len(sizes) % batch_size])


@pytest.mark.parametrize("order", ORDERS)
def test_an_epoch_depends_on_its_arguments_alone(order: str) -> None:
    sizes = sizes_of(3)
    np.random.seed(1)
    first = [step.tolist() for step in steps_of_epoch(sizes, 8, order, 5, 2)]
    np.random.seed(2)
    assert first == [step.tolist() for step in steps_of_epoch(np.array(sizes), 8, order, 5, 2)]
    assert first != [step.tolist() for step in steps_of_epoch(sizes, 8, order, 5, 3)]
    assert first != [step.tolist() for step in steps_of_epoch(sizes, 8, order, 6, 2)]


def test_steps_do_not_depend_on_devices_memory_and_micro_batches() -> None:
    assert list(inspect.signature(steps_of_epoch).parameters) == ["sizes", "batch_size", "order", "seed", "epoch"]


def test_the_random_order_does_not_look_at_sizes() -> None:
    sizes = sizes_of(7)
    one, other = (steps_of_epoch(given, 4, "random", 0, 0) for given in (sizes, sizes[::-1]))
    assert [step.tolist() for step in one] == [step.tolist() for step in other]


def test_the_bucketed_order_pads_less_and_still_meets_new_neighbours() -> None:
    sizes = [random.Random(0).randint(1, 200) for _ in range(1)] + [random.Random(i).randint(1, 200) for i in range(400)]

    def padded(order: str) -> int:
        return sum(len(step) * max(sizes[row] for row in step) for step in steps_of_epoch(sizes, 16, order, 0, 0))

    assert padded("length-bucketed") < 0.75 * padded("random")
    met = [{frozenset(step.tolist()) for step in steps_of_epoch(sizes, 16, "length-bucketed", 0, epoch)} for epoch in (0, 1)]
    assert not met[0] & met[1]


@pytest.mark.parametrize("order", ORDERS)
def test_no_rows_make_no_steps(order: str) -> None:
    assert steps_of_epoch([], 8, order, 0, 0) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("uniform", [False, True])
def test_micro_batches_hold_each_item_once_within_the_limit(seed: int, uniform: bool) -> None:
    sizes = sizes_of(seed, 40)
    items = [1000 + 7 * index for index in range(len(sizes))]  # items are ids, not positions
    size_of = dict(zip(items, sizes, strict=True))
    limit = random.Random(seed).choice([1, 50, 500, 5000])
    batches = micro_batches(items, sizes, 64, limit, uniform)
    assert sorted(itertools.chain(*batches)) == items
    for batch in batches:
        own = [size_of[item] for item in batch]
        assert len(batch) == 1 or len(batch) * max(own) <= limit
        assert not uniform or len(set(own)) == 1
    longest = [max(size_of[item] for item in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize("seed", range(60))
def test_no_other_division_costs_less(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randint(0, 30) for _ in range(draw.randint(1, 6))]
    overhead, limit = draw.choice([0, 1, 8, 64]), draw.choice([20, 60, 10**6])
    best = min(
        cost(batches, sizes, overhead) for batches in partitions(range(len(sizes)))
        if all(len(batch) == 1 or len(batch) * max(1, max(sizes[i] for i in batch)) <= limit for batch in batches)
    )
    assert cost(micro_batches(list(range(len(sizes))), sizes, overhead, limit), sizes, overhead) == best


def partitions(items: Sequence[int]) -> Iterator[list[list[int]]]:
    """Every way to put items into batches."""
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for index in range(len(rest)):
            yield [*rest[:index], [items[0], *rest[index]], *rest[index + 1 :]]


def test_an_empty_step_has_no_micro_batches() -> None:
    assert micro_batches([], [], 64, 100) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("uniform", [False, True])
def test_batches_by_size_hold_each_example_once_within_the_limits(seed: int, uniform: bool) -> None:
    sizes = sizes_of(seed)
    batches = evaluation_batches(sizes, 600, 8, uniform)
    assert sorted(itertools.chain(*batches)) == list(range(len(sizes)))
    for batch in batches:
        own = [sizes[index] for index in batch]
        assert len(batch) <= 8
        assert len(batch) == 1 or len(batch) * max(own) <= 600
        assert not uniform or len(set(own)) == 1
    assert evaluation_batches([], 600, 8) == []


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 8, 12])
def test_every_rank_gets_the_same_number_of_batches(world: int, count: int) -> None:
    batches = [[index, index + 100] for index in range(count)]
    ranks = [batches_of_rank(batches, world, rank) for rank in range(world)]
    assert len({len(mine) for mine in ranks}) == 1
    given = sorted((index, tuple(items)) for mine in ranks for index, items in mine if items)
    assert given == [(index, tuple(items)) for index, items in enumerate(batches)]
    assert len({index for mine in ranks for index, _ in mine}) == sum(len(mine) for mine in ranks)
