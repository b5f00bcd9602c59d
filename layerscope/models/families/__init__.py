"""Checkpoint families, one file each, recognised by their keys and never by a file's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Branch, Declared
from layerscope.models.heads import Operation
from layerscope.models.parallel_heads import ParallelHead
from layerscope.models.preprocessing import IMAGENET
from layerscope.models.trunks import Trunk
from layerscope.registry import Registry
from layerscope.types import Preprocessing


@dataclass(frozen=True)
class Parts:
    """What a family makes of a file: its trunk, and the operations behind it."""

    trunk: Trunk
    tensors: Weights = field(default_factory=Weights)
    """Those that the operations below name."""
    head: Sequence[Operation] = ()
    parallel: Mapping[str, ParallelHead] = field(default_factory=dict)
    """Instead of ``head``: several heads side by side, by name, each with a share of the trunk's
    representation."""
    predictor: Sequence[Operation] = ()
    """Behind the head, of the online branch alone: cut points ``P1``, ``P2``, …, off by default."""
    logits: Mapping[str, Sequence[Operation]] = field(default_factory=dict)
    """By name (``Q``, or ``Q1``, …): prototypes or classifiers, off by default."""
    output: Operation | None = None
    """A read-out that the network returns; no cut point."""
    ignored: Mapping[str, str] = field(default_factory=dict)
    """By a regular expression for the file's full keys: why they are not needed."""
    preprocessing: Preprocessing = IMAGENET
    notes: Sequence[str] = ()
    """What a reader of the numbers should know."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """What is to be recorded beside the trunk's own details."""


class Family(Protocol):
    """How one kind of checkpoint is recognised and taken apart; what is usual is inherited."""

    name: str
    title: str
    """What it is, for people: ``MoCo v1 and v2``."""
    layout: str
    """One phrase: containers and prefixes, ``state_dict``, ``module.encoder_q.``."""
    source: str
    """Where the layout is written down: repository and file."""
    branches: tuple[Branch, ...] = ()
    """Which weights the file holds, the family's usual ones first; empty where there is a choice
    of one."""
    general: bool = False
    """Whether it stands back where a more specific family fits as well."""

    def recognise(self, contents: Contents) -> str:
        """Return why these contents are of this family, or an empty string when they are not."""
        ...

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        """Return the file's trunk, built and with its tensors, and the operations behind it."""
        ...


families: Registry[Family] = Registry(
    "checkpoint family", package="layerscope.models.families", group="layerscope.families"
)
"""Every known family by name."""

F = TypeVar("F", bound=Family)


def register(family: type[F]) -> type[F]:
    """Add one of a class of families to the registry, under its name."""
    families.add(family.name, family())
    return family


def branch_of(family: Family, declared: Declared) -> Branch:
    """Return the branch that was declared, or the family's usual one."""
    return declared.branch or family.branches[0]


def require_weights(tensors: Weights, branch: Branch) -> Weights:
    """Return a branch's tensors.

    Raises:
        CheckpointError: There are none: the file was saved by a method without such a branch.
    """
    if not tensors:
        raise CheckpointError(
            f"The file holds no {branch} weights.", hint="Declare no branch to load what it holds."
        )
    return tensors
