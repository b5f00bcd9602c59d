import pytest
import torch
from torch import nn

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models.cuts import Stop, cut_points, select_cuts, trace


class Twisted(nn.Module):
    """Registers its layers in one order, calls them in another, and calls one of them twice."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(4, 6, 3)
        self.relu = nn.ReLU(inplace=True)
        self.first = nn.Conv2d(3, 4, 3)
        self.never = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.relu(self.last(self.relu(self.first(images))))


STOPS = (
    Stop("end", "relu#2", "head"),
    Stop("middle", "relu", "trunk"),
    Stop("start", "first", "trunk"),
    Stop("late", "last", "trunk"),
)


def test_the_order_is_call_order_not_registration_order():
    assert [call.module for call in trace(Twisted(), 16)] == ["first", "relu", "last", "relu#2"]


def test_cut_points_are_sorted_and_spread_over_the_unit_interval():
    cuts = cut_points(Twisted(), STOPS, 16)
    assert [cut.name for cut in cuts] == ["start", "middle", "late", "end"]
    assert [cut.depth for cut in cuts] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [cut.width for cut in cuts] == [4, 4, 6, 6]
    assert [cut.index for cut in cuts] == [0, 1, 2, 3]


def test_tracing_leaves_no_hook_and_the_mode_unchanged():
    network = Twisted().train()
    trace(network, 16)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_a_declared_module_that_is_never_called_is_an_error():
    with pytest.raises(CheckpointError, match="never calls never"):
        cut_points(Twisted(), [Stop("never", "never", "trunk")], 16)


def test_an_output_that_is_no_map_and_no_vector_is_refused():
    class Tokens(nn.Module):
        def forward(self, images):
            return images.flatten(2)

    network = nn.Sequential(Tokens())
    with pytest.raises(CheckpointError, match="neither a map nor a vector"):
        cut_points(network, [Stop("tokens", "0", "trunk")], 16)


def test_selection_keeps_index_and_depth_and_names_the_nearest_on_a_miss():
    cuts = cut_points(Twisted(), STOPS, 16)
    assert select_cuts(cuts, "end,m*") == (cuts[1], cuts[3])
    assert select_cuts(cuts, None) == cuts
    with pytest.raises(UnknownNameError, match=r"no layer called 'strat'.*start"):
        select_cuts(cuts, "strat")


def test_tracing_works_on_a_network_without_parameters():
    network = nn.Sequential(nn.AvgPool2d(2))
    assert trace(network, 8)[0].shape == (1, 3, 4, 4)
    assert torch.is_grad_enabled()
