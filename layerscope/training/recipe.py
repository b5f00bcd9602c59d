"""The recipe of a training run: every number that it takes to train the network again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one training run."""

    method: str
    trunk: str = "resnet18"
    width: int = 24
    """Channels of the stem; the representation has eight times as many."""
    head_layers: int = 3
    side: int = 64
    """Height and width of the network's input in pixels."""
    epochs: int = 40
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_epochs: int = 2
    precision: str = "bfloat16"
    seed: int = 0
    noisy_labels: float = 0.0
    """Share of the training targets that are wrong from the beginning to the end."""

    @property
    def representation(self) -> int:
        """Width of the trunk's output, and of every head layer."""
        return 8 * self.width

    def architecture(self, output: int) -> dict[str, Any]:
        """Return the card's architecture table."""
        return {
            "trunk": self.trunk,
            "width": self.width,
            "head": [self.representation] * self.head_layers,
            "output": output,
        }

    def table(self) -> dict[str, Any]:
        """Return every setting by name."""
        return asdict(self)
