import pytest
import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.batchnorm import calibrate, without_statistics


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
        nn.BatchNorm1d(5, affine=False, track_running_stats=False),
    ).eval()


def test_one_batch_calibrates_to_its_own_statistics():
    module, images = network(), torch.randn(16, 3, 8, 8)
    names = without_statistics(module)
    assert names == ("1", "5")
    by_batch = module(images)
    assert calibrate(module, names, [images]) == 16
    assert not without_statistics(module)
    # Running variances are unbiased, those of a batch are not: the outputs differ by that alone.
    conv = module[0](images)
    torch.testing.assert_close(module[1].running_mean, conv.mean((0, 2, 3)))
    torch.testing.assert_close(module[1].running_var, conv.var((0, 2, 3)))
    torch.testing.assert_close(module(images), by_batch * (15 / 16) ** 0.5, rtol=1e-2, atol=1e-2)


def test_the_statistics_are_the_average_over_batches_in_any_order():
    batches = list(torch.randn(3, 8, 3, 8, 8))
    forward, backward = network(), network()
    calibrate(forward, ["1", "5"], batches)
    calibrate(backward, ["1", "5"], batches[::-1])
    torch.testing.assert_close(forward[1].running_mean, backward[1].running_mean)
    torch.testing.assert_close(forward[5].running_var, backward[5].running_var)
    means = torch.stack([forward[0](batch).mean((0, 2, 3)) for batch in batches])
    torch.testing.assert_close(forward[1].running_mean, means.mean(0))


def test_only_the_named_layers_change_and_dropout_stays_off():
    module = network()
    before = {name: p.clone() for name, p in module.named_parameters()}
    calibrate(module, ["1", "5"], [torch.randn(8, 3, 8, 8)])
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
    assert not any(part.training for part in module.modules())


def test_after_calibration_an_image_no_longer_depends_on_its_batch():
    module, images = network(), torch.randn(6, 3, 8, 8)
    assert not torch.allclose(module(images)[:3], module(images[:3]))
    calibrate(module, ["1", "5"], [torch.randn(8, 3, 8, 8)])
    torch.testing.assert_close(module(images)[:3], module(images[:3]))


def test_no_images_is_an_error():
    with pytest.raises(CheckpointError, match="no training images"):
        calibrate(network(), ["1"], [])
