"""timm's architectures: bare state dicts, training checkpoints, and files of its hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import timm
from timm.models import PretrainedCfg

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, branch_of, families, register, require_weights
from layerscope.models.trunks import vit, zoo
from layerscope.models.trunks.architectures import Architecture, by_name
from layerscope.models.trunks.published import Published, find_published, of_configuration
from layerscope.models.trunks.zoo import ZooNetwork
from layerscope.types import Preprocessing

_CONFIG = "config.json"
_AVERAGED = ("state_dict_ema", "model_ema")
_SHOWN = 4


@register
class Timm(Family):
    """The state dicts of timm's networks, with their classifier or without."""

    name = "timm"
    title = "timm"
    layout = "as timm's models name them; state_dict, state_dict_ema and arch; config.json beside"
    source = "huggingface/pytorch-image-models train.py, timm/models/_hub.py"
    branches = ("online", "momentum")
    general = True

    def recognise(self, contents: Contents) -> str:
        configured = contents.beside.get(_CONFIG, {}).get("architecture")
        if isinstance(configured, str):
            return f"{_CONFIG} names {configured}" if _is_known(configured) else ""
        weights = contents.state_dict
        found = zoo.candidates(weights.shapes)
        if not any(architecture.library == "timm" for architecture in found):
            return ""
        named = contents.value("arch")
        if isinstance(named, str) and _is_known(named):
            return "" if families["torchvision"].recognise(contents) else f"its arch is {named}"
        plain = vit.fits(weights.without("head.").shapes)
        if plain or families["torchvision"].recognise(contents):
            return ""
        return f"the names and shapes of {found[0].title}"

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        averaged = next((name for name in _AVERAGED if name in contents.names()), _AVERAGED[0])
        own = unwrapped(contents.table(averaged)) if branch == "momentum" else contents.state_dict
        tensors = require_weights(own, branch)
        settings = contents.beside.get(_CONFIG, {})
        named, published = _named_architecture(contents, tensors)
        found = zoo.find_network(tensors, declared, named=named)
        preprocessing, source = _preprocessing(found, settings, published)
        used = averaged if branch == "momentum" else "/".join(contents.path)
        others = [name for name in (*_AVERAGED, "state_dict", "model") if name != used]
        return Parts(
            trunk=found.trunk,
            tensors=found.classifier,
            head=found.head,
            ignored=dict(found.ignored)
            | {f"({'|'.join(others)})/": "the weights of the other branch"},
            preprocessing=preprocessing,
            notes=(*_notes(found, named), source),
        )


def _is_known(name: str) -> bool:
    return bool(timm.is_model(name.partition(".")[0]))


def _named_architecture(
    contents: Contents, tensors: Weights
) -> tuple[Architecture | None, Published | None]:
    """Return the architecture that the file is of by its own account, or by its digits."""
    settings = contents.beside.get(_CONFIG, {})
    configured = settings.get("architecture")
    if isinstance(configured, str):
        return _configured(configured, settings), None
    found = zoo.candidates(tensors.shapes)
    published = find_published(contents.file, found)
    if published is not None:
        return published.architecture, published
    named = contents.value("arch")
    if isinstance(named, str) and _is_known(named):
        return by_name("timm", named), None
    return None, None


def _configured(name: str, settings: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a hub's configuration, with all that it says of it."""
    arguments = dict(_table(settings, "model_args"))
    known = {field.name for field in fields(PretrainedCfg)}
    own = {key: v for key, v in _table(settings, "pretrained_cfg").items() if key in known}
    if own:
        arguments["pretrained_cfg"] = own
    architecture = Architecture("timm", by_name("timm", name).name, arguments)
    if own:
        _require_size(own.get("input_size"))
    _require_made(architecture)
    return architecture


def _require_size(size: Any) -> None:
    sized = isinstance(size, list | tuple) and len(size) == 3
    if not sized or not all(type(n) is int and n > 0 for n in size):
        raise CheckpointError(
            f"The {_CONFIG} beside the file has the input_size {size!r}.",
            hint="It needs channels, height and width, as timm writes them.",
        )


def _require_made(architecture: Architecture) -> None:
    try:
        architecture.outline()
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"timm makes no {architecture.name} of what {_CONFIG} says: {reason}.",
            hint="Mend the file's model_args, or take it away.",
        ) from error


def _table(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = settings.get(name) or {}
    if isinstance(table, Mapping):
        return table
    raise CheckpointError(
        f"The {_CONFIG} beside the file has {name} {table!r}, which is no table.",
        hint="Mend it, or take it away.",
    )


def _preprocessing(
    found: ZooNetwork, settings: Mapping[str, Any], published: Published | None
) -> tuple[Preprocessing, str]:
    """Return the preprocessing, and where it is from."""
    given = settings.get("pretrained_cfg")
    if isinstance(given, Mapping):
        return of_configuration(given), f"Its preprocessing is that of its {_CONFIG}."
    if published is not None:
        return (
            published.preprocessing,
            f"Its preprocessing is that of timm's {published.name}, which it is.",
        )
    usual = timm.get_pretrained_cfg(found.architecture.name)
    if usual is None:
        raise CheckpointError(
            f"timm does not say what images its {found.architecture.name} takes.",
            hint="Write a card with the preprocessing.",
        )
    tag = f".{usual.tag}" if usual.tag else ""
    return (
        of_configuration(usual.to_dict()),
        "The file does not tell what its images looked like: the preprocessing is timm's default "
        f"for {found.architecture.name}{tag}; a card states another.",
    )


def _notes(found: ZooNetwork, named: Architecture | None) -> tuple[str, ...]:
    if named is not None or not found.same:
        return ()
    shown = ", ".join(other.name for other in found.same[:_SHOWN])
    more = ", …" if len(found.same) > _SHOWN else ""
    return (
        f"{shown}{more} have the same tensors and compute the same as {found.architecture.name}.",
    )
