import numpy as np
import pytest
import torch
from torch import nn

from layerscope.errors import TrainingError
from layerscope.training.images import AugmentedImages
from layerscope.training.methods import methods
from layerscope.training.methods.simclr import nt_xent
from layerscope.training.recipe import Recipe
from layerscope.training.trainer import EpochBatches, optimiser, train


def naive_nt_xent(first, second, temperature):
    views = torch.cat((first, second))
    n, total = len(first), 0.0
    for i in range(2 * n):
        similarity = [torch.cosine_similarity(views[i], views[k], dim=0) for k in range(2 * n)]
        exponentials = [torch.exp(s / temperature) for s in similarity]
        negatives = sum(e for k, e in enumerate(exponentials) if k != i)
        total = total - torch.log(exponentials[(i + n) % (2 * n)] / negatives)
    return total / (2 * n)


def test_nt_xent_is_the_papers_equation():
    first, second = torch.randn(2, 5, 7)
    torch.testing.assert_close(nt_xent(first, second, 0.3), naive_nt_xent(first, second, 0.3))


def test_nt_xent_knows_no_lengths_and_no_rotation():
    first, second = torch.randn(2, 5, 7, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64))[0]
    loss = nt_xent(first, second, 0.3)
    torch.testing.assert_close(nt_xent(3 * first @ turn, second @ turn, 0.3), loss)


def test_every_row_is_seen_once_an_epoch_in_an_order_of_the_seed():
    batches = EpochBatches(rows=10, size=3, seed=1)
    first = list(batches)
    assert first == list(batches)
    assert [len(batch) for batch in first] == [3, 3, 3]
    assert len({row for batch in first for _, row in batch}) == 9
    batches.epoch = 1
    assert [row for b in batches for _, row in b] != [row for b in first for _, row in b]


@pytest.mark.parametrize("name", ["simclr", "rotation", "category"])
def test_views_depend_on_seed_epoch_and_row_alone(name):
    images = torch.randint(0, 255, (4, 3, 48, 48), dtype=torch.uint8)
    views = AugmentedImages(images, torch.zeros(4, 3), methods[name], side=32, seed=0)
    torch.manual_seed(1)
    first, _ = views[(2, 1)]
    torch.manual_seed(2)
    again, _ = views[(2, 1)]
    other, _ = views[(3, 1)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (3, 32, 32)


def test_weight_decay_spares_biases_and_normalisation():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    decayed, others = optimiser(network, Recipe("simclr")).param_groups
    assert [p.dim() for p in decayed["params"]] == [2]
    assert {p.dim() for p in others["params"]} == {1}
    assert others["weight_decay"] == 0


def run(network, recipe, images, latents):
    views = AugmentedImages(images, latents, methods[recipe.method], side=32, seed=recipe.seed)
    return list(
        train(
            network,
            methods[recipe.method],
            views,
            recipe,
            normalise=lambda x: x.float() / 255 - 0.5,
            workers=0,
            advance=lambda *_: None,
        )
    )


class Tiny(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, outputs))

    def forward(self, images):
        return self.layers(images)


def test_training_lowers_the_loss():
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.uniform(-1.5, 1.5, (16, 3))).float()
    images = torch.from_numpy(rng.integers(0, 255, (16, 3, 40, 40), dtype=np.uint8))
    recipe = Recipe("rotation", epochs=30, batch_size=8, learning_rate=1e-2, precision="float32")
    torch.manual_seed(0)
    losses = run(Tiny(4), recipe, images, latents)
    assert losses[-1].loss < 0.7 * losses[0].loss
    assert len(losses) == 30


def test_categories_are_learnt_as_classes():
    labels = torch.arange(16) % 3
    images = (60 + 60 * labels.to(torch.uint8))[:, None, None, None].expand(16, 3, 40, 40)
    recipe = Recipe("category", epochs=20, batch_size=8, learning_rate=3e-2, precision="float32")
    torch.manual_seed(0)
    losses = run(Tiny(3), recipe, images, labels)
    assert losses[-1].loss < 0.7 * losses[0].loss


def test_too_few_images_for_a_batch():
    images = torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
    with pytest.raises(TrainingError, match="do not fill one batch of 256"):
        run(Tiny(4), Recipe("rotation"), images, torch.zeros(4, 3))


def test_a_diverged_loss_stops_the_run():
    images = torch.zeros(8, 3, 40, 40, dtype=torch.uint8)
    network = Tiny(4)
    with torch.no_grad():
        network.layers[2].weight.fill_(torch.inf)
    recipe = Recipe("rotation", batch_size=8, epochs=1)
    with pytest.raises(TrainingError, match="epoch 1"):
        run(network, recipe, images, torch.zeros(8, 3))
