"""Training the reference checkpoints: a method, a recipe, a rendered set → weights and a card."""

from layerscope.training.methods import Method
from layerscope.training.recipe import Recipe
from layerscope.training.run import Snapshots, pretrain

__all__ = ["Method", "Recipe", "Snapshots", "pretrain"]
