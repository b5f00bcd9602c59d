"""OpenAI's CLIP: TorchScript archives whose tensors include three settings of the network."""

from __future__ import annotations

from dataclasses import replace

from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.preprocessing import CLIP
from layerscope.models.trunks import clip

_SETTINGS = ("input_resolution", "context_length", "vocab_size")


@register
class OpenAIClip(Family):
    """The archives that openai/CLIP downloads, or their state dicts.

    A state dict without the three settings may as well be OpenCLIP's, whose transformers have
    another activation: such a file is of the family ``open-clip``, where it has to be declared.
    """

    name = "openai-clip"
    title = "OpenAI's CLIP"
    layout = (
        "visual. beside the settings input_resolution, context_length and vocab_size "
        "(without these: open-clip, with --declare trunk_act=quick_gelu)"
    )
    source = "openai/CLIP clip/model.py, clip/clip.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if all(setting in weights for setting in _SETTINGS) and clip.fits(weights.under("visual.")):
            return "visual beside the settings of OpenAI's archives"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        visual = contents.state_dict.under("visual.")
        if clip.is_transformer(visual):
            known = replace(clip.TRANSFORMER, trunk_act="quick_gelu")
            tower = clip.transformer(visual, known, declared)
        else:
            tower = clip.modified_resnet(visual, declared)
        return Parts(
            trunk=tower.trunk,
            tensors=tower.tensors,
            head=tower.head,
            ignored=clip.IGNORED | {rf".*\b({'|'.join(_SETTINGS)})$": "a setting of the network"},
            preprocessing=CLIP,
        )
