"""Ranks that start on the store of ranks before them agree on a name of their own."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch.distributed as dist

from dist_train.hosts import meeting

RANKS = 5


@pytest.fixture
def store() -> meeting.Store:
    return dist.HashStore()  # type: ignore[attr-defined, no-any-return]


def _start(store: meeting.Store, dice: random.Random) -> list[str]:
    delays = [dice.uniform(0, 0.05) for _ in range(RANKS)]

    def rank(number: int) -> str:
        time.sleep(delays[number])
        return meeting.name(store, number, RANKS, 30)

    with ThreadPoolExecutor(RANKS) as pool:
        return list(pool.map(rank, range(RANKS)))


def test_each_start_has_one_name_of_its_own(store: meeting.Store) -> None:
    dice = random.Random(0)
    names = [_start(store, dice) for _ in range(8)]
    assert all(len(set(found)) == 1 for found in names)
    assert len({found[0] for found in names}) == 8


def test_ranks_that_die_on_their_way_do_not_mislead_the_next(store: meeting.Store) -> None:
    """Some of them have come, and rank 0 may have answered them."""
    for present in ([1], [0, 1], [2, 3, 4], [0, 2], [0, 1, 2, 3]):
        threads = [threading.Thread(target=_alone, args=(store, rank)) for rank in present]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(_start(store, random.Random(1)))) == 1


def _alone(store: meeting.Store, rank: int) -> None:
    with suppress(TimeoutError):  # not where rank 0 and it were enough for it to be told the name
        meeting.name(store, rank, RANKS, 0.05)


def test_who_does_not_come_is_named(store: meeting.Store) -> None:
    with pytest.raises(TimeoutError, match="rank 1 did not come within"):
        meeting.name(store, 0, 2, 0.1)
    with pytest.raises(TimeoutError, match="rank 0 did not come within"):
        meeting.name(dist.HashStore(), 1, 2, 0.1)  # type: ignore[attr-defined]
