"""What a file's contents are taken for: their family, why, and the parts of the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, families
from layerscope.models.own import OwnNetwork, own_parts


@dataclass(frozen=True)
class Recognised:
    """What a file's contents were taken for."""

    family: str
    """Its name; ``own`` for a network that the user named with ``--declare arch``."""
    reason: str
    """Why the contents were taken for that, for people."""
    parts: Parts | OwnNetwork
    """The network's parts, with the file's tensors for each."""


def recognise(contents: Contents, declared: Declared) -> Recognised:
    """Return the family of a file's contents and the parts that the family makes of them.

    Raises:
        CheckpointError: No family fits, several do, or the one that was declared does not.
    """
    with torch.random.fork_rng(devices=[]):  # a trunk is initialised before it is filled
        if declared.arch is not None:
            _check_no_family(declared)
            return Recognised(
                "own", f"--declare arch={declared.arch}", own_parts(contents, declared)
            )
        _check_own(declared)
        name, reason = recognise_family(contents, declared.family)
        _check_branch(families[name], declared)
        return Recognised(name, reason, families[name].parts(contents, declared))


def recognise_family(contents: Contents, wanted: str | None = None) -> tuple[str, str]:
    """Return the name of the family that contents are of, and why; only the wanted is considered.

    Raises:
        CheckpointError: No family fits, or several do.
        UnknownNameError: There is no family of the wanted name.
    """
    if wanted is not None:
        reason = families[wanted].recognise(contents)
        if not reason:
            raise CheckpointError(
                f"{contents.title} is not of the family {wanted!r}: {_first_keys(contents)}.",
                hint=f"Expected {families[wanted].layout}. Declare no family to try all.",
            )
        return wanted, reason
    found = {name: family.recognise(contents) for name, family in families.items()}
    fitting = {name: reason for name, reason in found.items() if reason}
    special = {n: reason for n, reason in fitting.items() if not families[n].general}
    chosen = special or fitting
    if len(chosen) == 1:
        return next(iter(chosen.items()))
    if chosen:
        raise CheckpointError(
            f"{contents.title} fits several families: {', '.join(chosen)}.",
            hint=f"Choose one: --declare family={next(iter(chosen))}.",
        )
    raise CheckpointError(
        f"{contents.title} fits no known family; {_first_keys(contents)}.",
        hint="See `layerscope list families`, or describe the network with "
        "--declare arch=package.module:factory.",
    )


def _first_keys(contents: Contents) -> str:
    keys = sorted(contents.tensors)
    return f"its first keys are {', '.join(keys[:4])}" if keys else "it holds no tensors"


def _check_branch(family: Family, declared: Declared) -> None:
    if declared.branch is not None and declared.branch not in family.branches:
        known = ", ".join(family.branches) or "one set of weights"
        raise CheckpointError(
            f"A {family.title} file has no {declared.branch} weights to choose.",
            hint=f"It holds {known}; declare no branch.",
        )


def _check_own(declared: Declared) -> None:
    for name in ("head_from", "prefix_tokens", "map_axes"):
        if name in declared.given():
            raise CheckpointError(
                f"--declare {name} describes a network of your own, and none is named.",
                hint="Name it with --declare arch=package.module:factory, or leave the option out.",
            )


def _check_no_family(declared: Declared) -> None:
    for name in ("family", "branch"):
        # A card of such a network says that its family is "own".
        if declared.given().get(name, "own") != "own":
            raise CheckpointError(
                f"--declare {name}={declared.given()[name]} and arch cannot both be true.",
                hint=f"Declare no {name}: with arch the file's state dict is taken as it is.",
            )
