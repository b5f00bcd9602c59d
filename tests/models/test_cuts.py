import pytest
import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.cuts import IMAGES, Call, Stop, base_name, cut_points, trace


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


def points(network=None, stops=STOPS, side=16):
    return cut_points(trace(network or Twisted(), side), stops)


def test_cut_points_are_sorted_and_spread_over_the_unit_interval():
    cuts = points()
    assert [cut.name for cut in cuts] == ["start", "middle", "late", "end"]
    assert [cut.depth for cut in cuts] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [cut.width for cut in cuts] == [4, 4, 6, 6]
    assert [cut.index for cut in cuts] == [0, 1, 2, 3]
    assert {cut.key for cut in cuts} == {"start@mean", "middle@mean", "late@mean", "end@mean"}


def test_tracing_leaves_no_hook_and_the_mode_unchanged():
    network = Twisted().train()
    trace(network, 16)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_a_declared_module_that_is_never_called_is_an_error():
    with pytest.raises(CheckpointError, match="never calls never"):
        points(stops=[Stop("never", "never", "trunk")])


def test_tokens_have_their_usual_pooling_and_layout():
    class Tokens(nn.Module):
        def forward(self, images):
            return images.flatten(2).transpose(1, 2)

    network = nn.Sequential(Tokens())
    (cut,) = points(network, [Stop("tokens", "0", "trunk", tokens=1, pooling="cls")])
    assert (cut.layout, cut.pooling, cut.prefix_tokens, cut.width) == ("tokens", "cls", 1, 3)
    (cut,) = points(network, [Stop("tokens", "0", "trunk", tokens=2, class_token=False)])
    assert (cut.pooling, cut.class_token) == ("mean", False)


@pytest.mark.parametrize("shape", [(IMAGES,), (IMAGES, 2, 3, 4, 5)])
def test_an_output_that_is_no_map_no_tokens_and_no_vector_is_refused(shape):
    with pytest.raises(CheckpointError, match="neither a map, tokens nor a vector"):
        cut_points([Call("odd", shape)], [Stop("odd", "odd", "trunk")])


def test_an_output_whose_first_axis_does_not_count_the_images_is_refused():
    # As the windows of an attention, of which each image has several.
    with pytest.raises(CheckpointError, match="first axis does not count"):
        cut_points([Call("odd", (4 * IMAGES, 49, 8))], [Stop("odd", "odd", "trunk", tokens=0)])


def test_tracing_works_on_a_network_without_parameters():
    network = nn.Sequential(nn.AvgPool2d(2))
    assert trace(network, 8)[0].shape == (IMAGES, 3, 4, 4)
    assert trace(network, 8, 16)[0].shape == (IMAGES, 3, 4, 8)
    assert torch.is_grad_enabled()


def test_a_forward_that_fails_gives_its_calls_only_where_that_is_asked_for():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    assert [call.module for call in trace(network, 8, 16, whole=False)] == ["0", "1"]
    with pytest.raises(RuntimeError):
        trace(network, 8, 16)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_call_has_the_name_of_its_module():
    assert base_name("layer1.0.relu#2") == "layer1.0.relu"
