"""Checkpoints become networks with ordered cut points: families, cards, heads, cuts, taps."""

from layerscope.models.baselines import baseline_of, load
from layerscope.models.cards import card_folder, card_names, find_card, read_card
from layerscope.models.checkpoint import LoadedModel
from layerscope.models.checkpoint_list import ListedCheckpoint, listed_checkpoints, read_table
from layerscope.models.selection import select_cuts
from layerscope.models.taps import open_taps
from layerscope.models.untrained_network import untrained

__all__ = [
    "ListedCheckpoint",
    "LoadedModel",
    "baseline_of",
    "card_folder",
    "card_names",
    "find_card",
    "listed_checkpoints",
    "load",
    "open_taps",
    "read_card",
    "read_table",
    "select_cuts",
    "untrained",
]
