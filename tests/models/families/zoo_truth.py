"""Networks of timm and torchvision as judges: hooks on the library's own object."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from layerscope.models import LoadedModel, open_taps
from layerscope.models.files.weights import sha256_of_tensors
from layerscope.models.pooling import poolings_of

TOLERANCE = 1e-5


def each_network(names: Iterable[str], slow: Collection[str]) -> pytest.MarkDecorator:
    """Return the parametrisation by ``name``, of which some are slow."""
    marked = [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]
    return pytest.mark.parametrize("name", marked)


def expanded(names: str) -> list[str]:
    """Return names, ``blocks.0-2`` standing for three of them."""
    found = []
    for name in names.split():
        stem, _, last = name.rpartition("-")
        first = stem.rpartition(".")[2] if stem else ""
        if not (first.isdecimal() and last.isdecimal()):
            found.append(name)
            continue
        prefix = stem[: -len(first)]
        found += [f"{prefix}{i}" for i in range(int(first), int(last) + 1)]
    return found


@contextmanager
def hooks(network: nn.Module, make: Callable) -> Iterator[None]:
    handles = [m.register_forward_hook(make(name)) for name, m in network.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def outputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return a copy of every module's output, made before anything else could write to it."""
    found: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def keep(name):
        def hook(_module, given, output):
            counts[name] += 1
            call = name if counts[name] == 1 else f"{name}#{counts[name]}"
            if isinstance(output, Tensor):
                found[call] = output.clone()
            if given and isinstance(given[0], Tensor):
                found[f"{call}<"] = given[0].clone()

        return hook

    with hooks(network, keep):
        network(images)
    return found


def pooled(output: Tensor, layout: str, pooling: str, prefix: int) -> Tensor:
    """Pool by the plainest means."""
    if output.dim() == 2:
        return output
    if layout == "map":
        return output.mean((2, 3))
    if layout == "map-last":
        return output.mean((1, 2))
    return output[:, 0] if pooling == "cls" else output[:, prefix:].mean(1)


def gap(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def captured(model: LoadedModel, images: Tensor, cuts: Sequence) -> dict[str, Tensor]:
    with open_taps(model, cuts) as taps, torch.no_grad():
        return taps.run(images)


def library_modules(model: LoadedModel, classifier: Sequence[str]) -> dict[str, str]:
    """Return by cut which module of the library's own object it should be the output of.

    Args:
        model: As loaded.
        classifier: The modules of the library whose outputs are ``head.1``, ``head.2``, …; the
            first of them reads the trunk.
    """
    modules = {}
    for cut in model.cuts:
        if cut.part == "head":
            modules[cut.name] = classifier[2 * (int(cut.name.partition(".")[2]) - 1) + 1]
        elif cut.name == "trunk":
            modules[cut.name] = f"{classifier[0]}<" if classifier else ""
        else:
            modules[cut.name] = cut.module.removeprefix("trunk.")
    return modules


def judge(model: LoadedModel, network: nn.Module, images: Tensor, modules: dict[str, str]) -> None:
    """Compare every cut with the library's own object."""
    truth = outputs(network, images)
    before = sha256_of_tensors(model.module.state_dict())
    found = captured(model, images, model.cuts)
    assert list(found) == [cut.name for cut in model.cuts]
    for cut in model.cuts:
        expected = truth[modules[cut.name]]
        if expected.dim() > 2 and cut.layout == "vector":
            # A 1 × 1 convolution of vectors is a Linear; SqueezeNet's trunk ends in a mean.
            expected = expected.mean((2, 3))
        expected = pooled(expected, cut.layout, cut.pooling, cut.prefix_tokens)
        assert gap(found[cut.name], expected) <= TOLERANCE, cut.name
    assert sha256_of_tensors(model.module.state_dict()) == before


@torch.no_grad()
def nothing_crosses(network: nn.Module, images: Tensor, modules: Sequence[str]) -> None:
    """Prove that all the network sees of an image goes through each of the modules.

    One image's outputs are put in the place of another's: the result has to be the first image's.
    """
    one, other = images[:1], images[1:2]
    wanted = network(one).clone()
    assert gap(network(other), wanted) > 1e-3
    for name in modules:
        seen: list[Tensor] = []
        module = network.get_submodule(name)
        handle = module.register_forward_hook(
            lambda _m, _i, out, seen=seen: seen.append(out.clone())
        )
        network(one)
        handle.remove()
        handle = module.register_forward_hook(lambda _m, _i, _out, seen=seen: seen[0].clone())
        result = network(other)
        handle.remove()
        assert gap(result, wanted) <= TOLERANCE, name


def nothing_overwrites(model: LoadedModel, images: Tensor) -> None:
    """Overwrite every tapped output in place right behind the taps: what they captured stays.

    The network goes on with a copy of the output, so that all cuts are tried in one forward.
    """
    cuts = [
        replace(cut, pooling=pooling)
        for cut in model.cuts
        for pooling in poolings_of(cut.layout, cut.prefix_tokens)
        if pooling != "flat:9k"
    ]
    overwritten: list[str] = []

    def overwrite(name):
        def hook(_module, _inputs, output):
            copy = output.clone()
            output.fill_(torch.nan)
            overwritten.append(name)
            return copy

        return hook

    with open_taps(model, cuts) as taps, torch.no_grad():
        expected = taps.run_poolings(images)
        names = {cut.module.partition("#")[0] for cut in cuts}
        handles = [
            model.module.get_submodule(name).register_forward_hook(overwrite(name))
            for name in sorted(names)
        ]
        found = taps.run_poolings(images)
        for handle in handles:
            handle.remove()
    assert set(overwritten) == names
    for name, features in found.items():
        assert torch.equal(features, expected[name]), name
