"""Independent forwards: what the features of every cut should be, by plain torch and libraries."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and buffer values of a trained look, so that nothing hides in zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.dim() <= 1 and name.endswith(("weight", "gamma")):
                tensor.copy_(1 + 0.2 * noise)
            elif tensor.dim() <= 1 or name.endswith("running_mean"):
                tensor.copy_(0.2 * noise)
            else:
                tensor.copy_(noise * (2 / max(tensor[0].numel(), 1)) ** 0.5)
    return module.eval()


def tiny_resnet(width: int = 8, blocks: tuple[int, ...] = (1, 1, 1, 1)) -> ResNet:
    """Return torchvision's ResNet of basic blocks, few channels wide and without a classifier."""
    with torch.device("meta"):
        network = ResNet(BasicBlock, list(blocks))
    network.inplanes = width
    network.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
    network.bn1 = nn.BatchNorm2d(width)
    for stage, count in enumerate(blocks):
        stride = 1 if stage == 0 else 2
        layer = network._make_layer(BasicBlock, width * 2**stage, count, stride=stride)
        setattr(network, f"layer{stage + 1}", layer)
    network.fc = nn.Identity()
    return network


def tiny_cifar_resnet(padding: int = 1) -> ResNet:
    """Return a tiny ResNet with the stem for small images: stride 1 and no pooling."""
    network = tiny_resnet()
    network.conv1 = nn.Conv2d(3, 8, 3, stride=1, padding=padding, bias=False)
    network.maxpool = nn.Identity()
    return network


def trained(module: nn.Module) -> Mapping:
    """Return the state of an optimiser that has made one step."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)
    for parameter in list(module.parameters())[:3]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def small_resnet(width: int = 8, blocks: tuple[int, ...] = (1, 1, 1, 1)) -> ResNet:
    """Return a ResNet of bottlenecks without classifier, its stem ``width`` channels wide."""
    with torch.device("meta"):
        network = ResNet(Bottleneck, list(blocks))
    network.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
    network.bn1 = nn.BatchNorm2d(width)
    network.inplanes = width
    for stage, count in enumerate(blocks):
        layer = network._make_layer(Bottleneck, width * 2**stage, count, 1 if stage == 0 else 2)
        setattr(network, f"layer{stage + 1}", layer)
    network.fc = nn.Identity()
    return network


def resnet_features(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the pooled features of a torchvision ResNet's cuts up to ``trunk``."""
    return stage_features(
        network, network.maxpool(network.relu(network.bn1(network.conv1(images))))
    )


def stage_features(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the pooled features of a ResNet's cuts, from the output of its stem on."""
    features = {"stem": x.mean((2, 3))}
    for stage in range(1, 5):
        for number, block in enumerate(getattr(network, f"layer{stage}")):
            x = block(x)
            features[f"layer{stage}.{number}"] = x.mean((2, 3))
    return features | {"trunk": x.mean((2, 3))}


def vit_features(network: nn.Module, images: Tensor, pooling: str = "cls") -> dict[str, Tensor]:
    """Return the pooled features of a timm-style transformer's cuts up to ``trunk``.

    Args:
        network: With ``patch_embed``, ``_pos_embed``, ``norm_pre``, ``blocks`` and ``norm``.
        images: (b, 3, side, side).
        pooling: ``cls`` or ``mean`` of the patches.
    """
    prefix = network.num_prefix_tokens

    def pooled(x: Tensor) -> Tensor:
        return x[:, 0].clone() if pooling == "cls" else x[:, prefix:].mean(1)

    x = network.norm_pre(network._pos_embed(network.patch_embed(images)))
    features = {"embed": x[:, prefix:].mean(1)}
    for number, block in enumerate(network.blocks):
        x = block(x)
        features[f"blocks.{number}"] = pooled(x)
    return features | {"trunk": pooled(network.norm(x))}
