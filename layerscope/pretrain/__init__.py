"""Training the reference checkpoints: a method, a recipe, a rendered set → weights and a card."""

from layerscope.pretrain.methods import Method, methods
from layerscope.pretrain.recipe import Recipe
from layerscope.pretrain.run import Snapshots, pretrain

__all__ = ["Method", "Recipe", "Snapshots", "methods", "pretrain"]
