"""Features behave like arrays and data sets, and are read when they are asked for."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from layerscope import open_cache
from layerscope.cache import AssignmentWriter, CacheBuild
from layerscope.errors import CacheError, UnknownNameError


@pytest.fixture(params=[1, 3])
def cache(request, tmp_path, header, fill):
    """One file, or three shards; nobody should be able to tell."""
    path = tmp_path / "net@toy.h5"
    with CacheBuild(path, header) as lead:
        for share in lead.assignments(request.param, 4):
            with AssignmentWriter(path, lead.header, share) as writer:
                fill(writer)
        lead.finish()
    with open_cache(str(path)) as opened:
        yield opened


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(3, 17, 2),
        slice(None, None, -1),
        [5, 1, 20, 5],
        np.arange(21) % 2 == 0,
        np.array([20, 0]),
        -1,
        7,
        [],
    ],
)
def test_it_is_indexed_as_an_array_is(cache, features, index):
    rows = features["trunk@mean"]
    index = np.array(index, int) if isinstance(index, list) else index
    found = cache["trunk"][index]
    np.testing.assert_array_equal(found, rows[index])
    assert found.dtype == np.float32


def test_it_is_an_array_a_tensor_and_a_view(cache, features):
    trunk = cache["trunk@mean"]
    assert (trunk.shape, len(trunk), trunk.ndim, trunk.dtype) == ((21, 5), 21, 2, np.float32)
    np.testing.assert_array_equal(np.asarray(trunk), features["trunk@mean"])
    assert torch.equal(trunk.tensor([2, 1]), torch.from_numpy(features["trunk@mean"][[2, 1]]))
    train = torch.from_numpy(cache.view("trunk").features("train"))
    assert torch.equal(cache.view("trunk").tensor("train"), train)
    np.testing.assert_array_equal(np.concatenate(list(trunk.blocks(4))), features["trunk@mean"])
    assert len(trunk.damaged()) == 0


def test_wrong_rows_and_layers_are_errors(cache):
    with pytest.raises(IndexError):
        cache["trunk"][21]
    with pytest.raises(UnknownNameError):
        cache["trunks"]
    with pytest.raises(UnknownNameError):
        cache["trunk@cls"]


def test_a_cache_that_was_closed_is_not_read(cache):
    trunk = cache["trunk"]
    cache.close()
    with pytest.raises((CacheError, OSError)):
        trunk[0]


def test_a_loader_gives_rows_with_their_targets(cache, header, features):
    rows = np.flatnonzero(header.source.splits == "train")
    data = cache.dataset("trunk", "toy-pose", "train")
    assert len(data) == len(rows)
    batches = list(DataLoader(data, batch_size=4))
    values, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(values, features["trunk@mean"][rows])
    np.testing.assert_array_equal(targets, header.source.targets["toy-pose"][rows])
    alone = torch.stack([cache.dataset("trunk")[i] for i in range(len(rows))])
    np.testing.assert_array_equal(alone, values)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_the_same_shuffled_rows(cache, context):
    data = cache.dataset("head.1", "toy-kind", "test")
    shuffle = {"shuffle": True, "batch_size": 3}
    here = list(DataLoader(data, generator=torch.Generator().manual_seed(3), **shuffle))
    there = list(
        DataLoader(
            data,
            generator=torch.Generator().manual_seed(3),
            num_workers=1,
            multiprocessing_context=context,
            **shuffle,
        )
    )
    for ours, theirs in zip(here, there, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
