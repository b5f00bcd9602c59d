"""Checkpoints become networks with ordered cut points: families, cards, heads, cuts, taps."""

from layerscope.models.cards import card_folder, card_names, find_card, read_card
from layerscope.models.checkpoint import LoadedModel, load
from layerscope.models.checkpoint_list import Member, members, read_table
from layerscope.models.families import families
from layerscope.models.selection import select_cuts
from layerscope.models.taps import open_taps
from layerscope.models.untrained_network import untrained

__all__ = [
    "LoadedModel",
    "Member",
    "card_folder",
    "card_names",
    "families",
    "find_card",
    "load",
    "members",
    "open_taps",
    "read_card",
    "read_table",
    "select_cuts",
    "untrained",
]
