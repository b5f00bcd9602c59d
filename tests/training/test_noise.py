"""Wrong labels: exactly as many as asked, of the seed alone, and nothing else is touched."""

import pytest
import torch

from layerscope.training.noise import corrupt_targets

LABELS = torch.arange(1000) % 7
LATENTS = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.4004, 1.0])
def test_exactly_the_share_is_wrong(share):
    wrong = corrupt_targets(LABELS, share, seed=1, classes=7) != LABELS
    assert int(wrong.sum()) == round(share * 1000)
    moved = (corrupt_targets(LATENTS, share, seed=1) != LATENTS).any(1)
    assert int(moved.sum()) == round(share * 1000)


def test_a_wrong_class_is_any_of_the_others():
    labels = torch.full((6000,), 3)
    counts = torch.bincount(corrupt_targets(labels, 1.0, seed=0, classes=7), minlength=7)
    assert counts[3] == 0
    others = counts[torch.arange(7) != 3].float()
    assert float((others - 1000).abs().max()) < 4 * 1000**0.5


def test_wrong_latents_are_those_of_other_images():
    changed = corrupt_targets(LATENTS, 0.3, seed=2)
    assert torch.equal(changed.sort(0).values, LATENTS.sort(0).values)


def test_the_seed_decides_and_the_given_targets_stay():
    kept = LABELS.clone()
    first, again, other = (corrupt_targets(LABELS, 0.4, seed=s, classes=7) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(LABELS, kept)
