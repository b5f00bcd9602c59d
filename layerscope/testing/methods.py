"""Does a training method learn, the same from the same seed, and say where it is described?

Everything is tried on a small network and a dozen small images, which takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from layerscope.data.sources import tasks
from layerscope.models import untrained
from layerscope.testing.findings import collect, missing
from layerscope.training.images import AugmentedImages
from layerscope.training.methods import Method, methods
from layerscope.training.recipe import Recipe
from layerscope.training.run import normaliser
from layerscope.training.trainer import train
from layerscope.types import Task

SIDE = 32
IMAGES, CLASSES = 24, 3
RECIPE = Recipe(
    "", width=8, side=SIDE, epochs=8, batch_size=12, warmup_epochs=1, precision="float32"
)


def check_method(name: str) -> list[str]:
    """Return what is wrong with a training method, one sentence each; empty if nothing.

    It has to say what it is, whose targets it needs and where it is described; to make as many
    views of each image, uint8 and of the side that is asked for, from torch's generator alone; to
    have a finite loss with a gradient for every parameter of the network, which uses the targets
    that it asks for and changes nothing that it is given; and to lower that loss in a short
    training, to the same numbers from the same seed.

    Args:
        name: Of a registered method.

    Raises:
        UnknownNameError: There is no method of that name.
    """
    method = methods[name]
    with torch.random.fork_rng(devices=[]):
        return list(missing(method, Method)) or collect(_findings(name, method))


def _findings(name: str, method: Method) -> Iterator[str]:
    yield from _words(name, method)
    if method.task and method.task not in tasks:
        yield f"Its task {method.task!r} is not registered."
        return
    images, targets = _images(), _targets(tasks[method.task] if method.task else None)
    yield from (
        _views(method, images)
        or _loss(method, images, targets)
        or _training(method, images, targets)
    )


def _words(name: str, method: Method) -> Iterator[str]:
    if method.name != name:
        yield f"It is registered as {name!r}, and its name is {method.name!r}."
    for what in ("description", "citation"):
        text = getattr(method, what)
        if not isinstance(text, str) or not text.strip():
            yield f"Its {what} is empty; the card of what it trains shows it."
    if method.description.endswith("."):
        yield "Its description ends with a full stop, which the card adds."
    output = method.output
    if output is None and not method.task:
        yield "Its output is None, one number a class, and it names no task."
    elif output is not None and (not isinstance(output, int) or output < 0):
        yield f"Its output is {output!r}: give a number, or None for one a class of its task."


def _images() -> Tensor:
    """Return (n, 3, h, w) uint8 images that differ in coarse colours, as few real ones do."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(IMAGES, 3, 4, 4, generator=draw)
    return (nn.functional.interpolate(coarse, size=(48, 40), mode="bilinear") * 255).byte()


def _targets(task: Task | None) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    if task is None:
        return torch.zeros(IMAGES, 0)
    if task.kind == "classes":
        return torch.arange(IMAGES) % CLASSES
    if task.kind == "multilabel":
        return torch.randint(0, 2, (IMAGES, len(task.classes) or CLASSES), generator=draw)
    latents = 3 if task.encoding == "quaternion" else 1
    return torch.rand(IMAGES, latents, generator=draw)


def _views(method: Method, images: Tensor) -> list[str]:
    counts = set()
    for image in images[:3]:
        kept = image.clone()
        torch.manual_seed(0)
        first = method.inputs(image, SIDE)
        if not torch.equal(image, kept):
            return ["inputs() changes the image."]
        torch.manual_seed(0)
        again = method.inputs(image, SIDE)
        if not isinstance(first, tuple) or not first:
            return [f"inputs() gives {type(first).__name__}, not a tuple of views."]
        for view in first:
            if view.shape != (3, SIDE, SIDE) or view.dtype != torch.uint8:
                return [
                    f"inputs() gives a view {tuple(view.shape)} of {view.dtype}, not "
                    f"(3, {SIDE}, {SIDE}) of torch.uint8."
                ]
        counts.add(len(first))
        if not all(map(torch.equal, first, again)):
            return ["The same seed gives other views: draw from torch's generator alone."]
    if len(counts) > 1:
        return [f"inputs() gives {' or '.join(map(str, sorted(counts)))} views of an image."]
    return []


def _network(method: Method) -> nn.Module:
    output = CLASSES if method.output is None else method.output
    return untrained(RECIPE.architecture(output), 0)


def _loss(method: Method, images: Tensor, targets: Tensor) -> list[str]:
    network = _network(method).train()
    dataset = AugmentedImages(images, targets, method, side=SIDE, seed=0)
    views = zip(*(dataset[(0, row)][0] for row in range(IMAGES)), strict=True)
    batch = tuple(_normalise(torch.stack(each)) for each in views)
    given = [tensor.clone() for tensor in (*batch, targets)]
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    loss = method.loss(network, batch, targets)
    if not isinstance(loss, Tensor) or loss.shape != ():
        return ["loss() gives no single number, as a tensor without axes."]
    if not math.isfinite(float(loss.detach())):
        return [f"Its loss is {float(loss.detach())} on a small network."]
    if not loss.requires_grad:
        return ["Its loss has no gradient."]
    if not all(map(torch.equal, given, (*batch, targets))):
        return ["loss() changes the views or the targets."]
    if not all(map(torch.equal, weights, network.parameters())):
        return ["loss() changes the network's parameters."]
    loss.backward()  # type: ignore[no-untyped-call]
    found = []
    without = [name for name, it in network.named_parameters() if it.grad is None]
    if without:
        found.append(f"{len(without)} parameters have no gradient, such as {without[0]}.")
    with torch.no_grad():
        other = method.loss(_network(method).train(), batch, targets.roll(1, 0))
    if method.task and torch.equal(other, loss.detach()):
        found.append(f"Its loss is the same for other targets of {method.task}.")
    return found


def _training(method: Method, images: Tensor, targets: Tensor) -> list[str]:
    first, again = (_losses(method, images, targets) for _ in range(2))
    found = []
    if first != again:
        found.append("The same seed gives other losses in a second training.")
    if not first[-1] < first[0]:
        found.append(
            f"Its loss does not fall in a short training: {first[0]:.4g} at first, "
            f"{first[-1]:.4g} at last."
        )
    return found


def _losses(method: Method, images: Tensor, targets: Tensor) -> list[float]:
    torch.manual_seed(0)
    epochs = train(
        _network(method),
        method,
        AugmentedImages(images, targets, method, side=SIDE, seed=0),
        RECIPE,
        normalise=_normalise,
        workers=0,
        advance=lambda *_: None,
    )
    return [epoch.loss for epoch in epochs]


_normalise = normaliser([0.5] * 3, [0.25] * 3)
