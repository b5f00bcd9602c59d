"""Each pooling against its formula in plain torch."""

import pytest
import torch
from torch.nn import functional as F

from layerscope.errors import CheckpointError
from layerscope.models.pooling import pool, pooled_width, poolings_of

POOLINGS = ("mean", "cls", "cls+mean", "max", "flat:9k", "none")


def tokens(prefix, side=4, width=6):
    """Patches of usual size behind leading tokens that would show in any mean or maximum."""
    torch.manual_seed(0)
    leading = 1000 + 100.0 * torch.arange(2 * prefix * width).reshape(2, prefix, width)
    return torch.cat([leading, torch.randn(2, side * side, width)], dim=1)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_leading_tokens_stay_out_of_mean_and_maximum_and_the_first_is_the_class_token(prefix):
    x = tokens(prefix)
    patches = torch.stack([x[:, i] for i in range(prefix, x.shape[1])])
    found = {name: pool(x, "tokens", name, prefix) for name in POOLINGS}
    torch.testing.assert_close(found["mean"], patches.sum(0) / 16)
    torch.testing.assert_close(found["max"], patches.max(0).values)
    assert torch.equal(found["none"], x.reshape(2, -1))
    grid = patches.reshape(4, 4, 2, 6).permute(2, 3, 0, 1)
    torch.testing.assert_close(found["flat:9k"], grid.reshape(2, -1))
    if prefix:
        assert torch.equal(found["cls"], x[:, 0])
        torch.testing.assert_close(
            found["cls+mean"], torch.cat([x[:, 0], patches.sum(0) / 16], dim=1)
        )


@pytest.mark.parametrize("layout", ["map", "map-last"])
def test_maps_are_pooled_over_height_and_width_wherever_their_channels_are(layout):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 4)
    given = x if layout == "map" else x.permute(0, 2, 3, 1).contiguous()
    torch.testing.assert_close(pool(given, layout, "mean"), x.flatten(2).mean(2))
    torch.testing.assert_close(pool(given, layout, "max"), x.flatten(2).amax(2))
    assert torch.equal(pool(given, layout, "none"), given.flatten(1))
    assert torch.equal(pool(given, layout, "flat:9k"), x.flatten(1))


@pytest.mark.parametrize(
    ("channels", "side"), [(64, 12), (256, 6), (512, 4), (1024, 3), (2048, 2), (20_000, 1)]
)
@pytest.mark.parametrize("layout", ["map", "map-last", "tokens"])
def test_a_fixed_size_is_a_grid_of_means_of_about_nine_thousand_numbers(channels, side, layout):
    x = torch.randn(1, channels, 24, 24)
    given = {
        "map": x,
        "map-last": x.permute(0, 2, 3, 1),
        "tokens": torch.cat([torch.full((1, 1, channels), 9e9), x.flatten(2).mT], dim=1),
    }[layout]
    prefix = 1 if layout == "tokens" else 0
    found = pool(given, layout, "flat:9k", prefix)
    if 24 % side == 0:  # cells of equal size: a plain average pooling
        torch.testing.assert_close(found, F.avg_pool2d(x, 24 // side).flatten(1))
    assert found.shape == (1, channels * side * side)
    assert pooled_width(given.shape, layout, "flat:9k", prefix) == channels * side * side


def test_a_grid_is_no_finer_than_the_map():
    x = torch.randn(2, 64, 5, 3)
    assert torch.equal(pool(x, "map", "flat:9k"), x.flatten(1))


def test_patches_that_form_no_square_have_no_grid():
    with pytest.raises(CheckpointError, match="17 patches form no square"):
        pool(tokens(1), "tokens", "flat:9k", 0)


def test_what_an_output_can_be_pooled_by():
    assert poolings_of("vector") == ("none",)
    assert poolings_of("map") == poolings_of("map-last") == ("mean", "max", "flat:9k", "none")
    assert poolings_of("tokens", 0) == ("mean", "max", "flat:9k", "none")
    assert poolings_of("tokens", 4, class_token=False) == poolings_of("tokens", 0)
    assert set(poolings_of("tokens", 1)) == set(POOLINGS)


SHAPES = {"vector": (2, 7), "map": (2, 7, 4, 4), "map-last": (2, 4, 4, 7), "tokens": (2, 17, 7)}
EVERY = [(layout, pooling) for layout in SHAPES for pooling in poolings_of(layout, 1)]


@pytest.mark.parametrize("shrunk", [False, True])
@pytest.mark.parametrize(("layout", "pooling"), EVERY)
def test_what_was_pooled_never_shares_memory_with_the_output(layout, pooling, shrunk):
    # With a single position a mean or a grid could be a view of its only element.
    shape = SHAPES[layout]
    if shrunk and layout != "vector":
        shape = {"map": (2, 7, 1, 1), "map-last": (2, 1, 1, 7), "tokens": (2, 2, 7)}[layout]
    x = torch.randn(shape)
    found = pool(x, layout, pooling, 1 if layout == "tokens" else 0)
    before = found.clone()
    x.fill_(1e6)
    assert torch.equal(found, before)
    assert found.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert found.dtype == torch.float32
    assert found.shape == (2, pooled_width(shape, layout, pooling, 1 if layout == "tokens" else 0))


def test_half_precision_is_pooled_in_float32():
    x = torch.full((1, 3, 64, 64), 300.0, dtype=torch.float16)
    assert torch.equal(pool(x, "map", "mean"), torch.full((1, 3), 300.0))
