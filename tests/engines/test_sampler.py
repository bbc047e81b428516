from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.engines import sampler as module
from monai_fedlora.engines.sampler import CaseSampler
from monai_fedlora.errors import DataError


def order(n: int, epoch: int, *, seed: int = 1) -> list[int]:
    sampler = CaseSampler(range(n), shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert order(20, 3) == order(20, 3)
    assert order(20, 3) != order(20, 4)
    assert order(20, 3) != order(20, 3, seed=2)
    assert sorted(order(20, 3)) == list(range(20))


def test_without_shuffling_the_list_keeps_its_order() -> None:
    assert list(CaseSampler(range(4), shuffle=False)) == [0, 1, 2, 3]


@given(size=st.integers(1, 40), processes=st.integers(1, 6), shuffle=st.booleans(), epoch=st.integers(1, 5))
def test_the_shards_of_several_processes_cover_every_case(size, processes, shuffle, epoch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "world_size", lambda: processes)
        if size < processes:
            with pytest.raises(DataError, match="start fewer processes"):
                CaseSampler(range(size), shuffle=shuffle)
            return
        shards = []
        for number in range(processes):
            patch.setattr(module, "rank", lambda number=number: number)
            sampler = CaseSampler(range(size), shuffle=shuffle, seed=2)
            sampler.set_epoch(epoch)
            shards.append(list(sampler))
            assert len(sampler) == len(shards[-1])
    seen = sorted(case for shard in shards for case in shard)
    assert set(seen) == set(range(size))
    if shuffle:
        assert len({len(shard) for shard in shards}) == 1
    else:
        assert len(seen) == size


def test_training_needs_a_case_and_evaluation_does_not() -> None:
    with pytest.raises(DataError, match="no training case"):
        CaseSampler([], shuffle=True)
    assert list(CaseSampler([], shuffle=False)) == []
