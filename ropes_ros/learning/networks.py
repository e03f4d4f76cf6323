"""The encoder networks: from a small image to every joint's normalised angle, its spread, and features.

A network describes itself by plain values, `architecture()`, from which `build` makes an equal, untrained one; a
checkpoint holds both, so that whoever reads it need not know which kind it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ropes_ros.errors import TrainingError

LOG_STD_RANGE = (-4.5, -0.7)
"""Bounds of the learned log standard deviation: 0.011 to 0.50 half ranges."""
COORDINATES = "+coordinates"
"""Ending of a backbone's name that asks for coordinate channels."""
_COARSEST = 8
"""Residual backbones halve the maps until neither side is longer than this many cells."""


class Prediction(NamedTuple):
    """What the network says of a batch of N images of a robot with J joints.

    Attributes:
        angle: Normalised joint angles u, float [N, J], half ranges about home.
        log_std: Logarithm of their standard deviation, float [N, J], half ranges.
        features: Hidden activations, then mean and standard deviation of each channel after every stage of the
            convolutions, float [N, F], from which novelty is judged: the first see a pose that is unlike, the second
            light, colour and texture that are.
    """

    angle: Tensor
    log_std: Tensor
    features: Tensor


def prediction_part(prediction: Prediction, part: slice) -> Prediction:
    """Some frames of a prediction."""
    return Prediction(prediction.angle[part], prediction.log_std[part], prediction.features[part])


class Residual(NamedTuple):
    """Size of a residual backbone: channels of its first stage (the later ones have up to 8 times as many), blocks a
    stage, channels handed to the hidden layer, and its units."""

    width: int
    blocks: int
    neck: int
    hidden: int


RESIDUAL = {
    "residual-small": Residual(16, 1, 64, 256),
    "residual": Residual(32, 1, 64, 256),
    "residual-large": Residual(64, 2, 128, 512),
}
BACKBONES = ("small", *RESIDUAL)
"""Names of the backbones; each may be followed by `COORDINATES`."""

KINDS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {}
"""How a network of each kind is made from its architecture; a module that has a kind of its own adds it here. Every
kind maps float [N, 3, h, w] in 0..1 to a `Prediction`, and has the attributes `image_size` and `joints`."""
_HOMES = {
    "ropes": "ropes_ros.learning.ropes",
    "aligned": "ropes_ros.learning.align",
    "cascade": "ropes_ros.learning.glimpse",
    "quantised": "ropes_ros.learning.quantize",
}


def build(architecture: dict[str, Any]) -> nn.Module:
    """An untrained network of a described architecture.

    Args:
        architecture: What `architecture()` of a network gave: plain values, "kind" among them.

    Raises:
        TrainingError: The kind is unknown.
    """
    kind = architecture.get("kind")
    if kind in _HOMES:
        importlib.import_module(_HOMES[kind])
    if kind not in KINDS:
        raise TrainingError(f"architecture of kind {kind!r} is unknown: it was made by a newer version; update")
    return KINDS[kind](architecture)


class AngleNet(nn.Module):
    """Convolutions, one hidden layer, and a linear head for all joints.

    Args:
        image_size: (width, height) of the input in pixels.
        joints: Number of joints J.
        backbone: One of `BACKBONES`, with `COORDINATES` after it or not. "small" is what a CPU can train in minutes:
            four strided convolutions with few channels while the image is large. The residual ones (He et al.,
            arXiv 1512.03385) blur before they subsample (Zhang, arXiv 1904.11486). Coordinate channels tell each
            place of the image where it is (Liu et al., arXiv 1807.03247).
        dropout: Probability with which a hidden unit is dropped in training.
        codes: Values that each angle may take, 0 for any; see `quantise`.

    Raises:
        TrainingError: The backbone is unknown, or the image too small for it.
    """

    codebook: nn.Parameter | None
    coordinates: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        joints: int,
        *,
        backbone: str = "small",
        dropout: float = 0.2,
        codes: int = 0,
    ) -> None:
        super().__init__()
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.joints = joints
        self.backbone = backbone
        name = backbone.removesuffix(COORDINATES)
        if name not in BACKBONES:
            raise TrainingError(f"backbone {backbone!r} is unknown: choose one of {', '.join(BACKBONES)}")
        if min(self.image_size) < 16:
            raise TrainingError(f"images of {image_size[0]}x{image_size[1]} pixels are too small: take at least 16x16")
        planes = 3
        if backbone.endswith(COORDINATES):
            planes = 5
            self.register_buffer("coordinates", _coordinates(self.image_size), persistent=False)
        width, height = self.image_size
        if name == "small":
            self.stem, width, height = _strided(planes, width, height)
            self.channels, neck, units = 128, 128, 256
            squeeze: list[nn.Module] = []
        else:
            size = RESIDUAL[name]
            self.stem, self.channels, width, height = _residual(planes, size, width, height)
            neck, units = size.neck, size.hidden
            squeeze = [nn.Conv2d(self.channels, neck, 1, bias=False), nn.BatchNorm2d(neck), nn.ReLU(inplace=True)]
        self.map_size = (width, height)
        self.units = units
        self.hidden = nn.Sequential(
            *squeeze, nn.Flatten(), nn.Linear(neck * width * height, units), nn.ReLU(inplace=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(units, 2 * joints)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.head.bias[joints:] = -1.2
        self.codebook = None
        if codes:
            self.quantise(codes)

    def architecture(self) -> dict[str, Any]:
        """Plain values from which `build` makes an equal, untrained network."""
        return {
            "kind": "angle",
            "image_size": list(self.image_size),
            "joints": self.joints,
            "backbone": self.backbone,
            "dropout": self.dropout.p,
            "codes": 0 if self.codebook is None else self.codebook.shape[1],
        }

    def quantise(self, codes: int) -> None:
        """Let each angle take only so many values, which are learned: a scalar codebook per joint, even at first.

        The gradient passes straight through (Hsu et al., arXiv 2305.18378). To be called before an optimiser
        or an average of the network is made, as it adds a parameter.
        """
        values = torch.linspace(-1.0, 1.0, codes, device=self.head.weight.device)
        self.codebook = nn.Parameter(values.repeat(self.joints, 1))

    def trunk(self, images: Tensor) -> Tensor:
        """Feature maps of images, float [N, C, h', w'], C being `channels` and (w', h') `map_size`.

        Args:
            images: float [N, 3, height, width], RGB in 0..1.
        """
        maps: Tensor = self.stem(self._planes(images))
        return maps

    def _planes(self, images: Tensor) -> Tensor:
        planes = (images - 0.5) * 4.0
        if self.backbone.endswith(COORDINATES):
            planes = torch.cat([planes, self.coordinates.expand(images.shape[0], -1, -1, -1)], dim=1)
        return planes

    def embed(self, images: Tensor) -> Tensor:
        """Hidden activations of images [N, 3, height, width], float [N, H], H being `units`."""
        hidden: Tensor = self.hidden(self.trunk(images))
        return hidden

    def read(self, maps: Tensor) -> Prediction:
        """Predict from feature maps, float [N, C, h', w']; the head computes in float32 under autocast, too."""
        hidden = self.hidden(maps)
        with torch.autocast(hidden.device.type, enabled=False):
            angle, raw = self.head(self.dropout(hidden.float())).split(self.joints, dim=1)
        if self.codebook is not None:
            angle = angle + (nearest_code(angle, self.codebook) - angle).detach()
        return Prediction(angle, raw.clamp(*LOG_STD_RANGE), hidden)

    def hidden_of(self, prediction: Prediction) -> Tensor:
        """The hidden activations among a prediction's features, float [N, H]."""
        return prediction.features[:, : self.units]

    def continuous(self, prediction: Prediction) -> Tensor:
        """The angles before they are quantised, without dropout, float [N, J]."""
        with torch.autocast(prediction.features.device.type, enabled=False):
            angle: Tensor = self.head(self.hidden_of(prediction).float())[:, : self.joints]
        return angle

    def forward(self, images: Tensor) -> Prediction:
        """Predict from images.

        Args:
            images: float [N, 3, height, width], RGB in 0..1.
        """
        maps, statistics = with_statistics(self.stem, self._planes(images))
        prediction = self.read(maps)
        return prediction._replace(features=torch.cat([prediction.features, statistics], dim=1))


def with_statistics(stages: nn.Sequential, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Pass maps through stages, noting mean and standard deviation of each channel after each activation.

    Args:
        stages: Layers; those with layers of their own count as stages, but for convolutions, of the others the
            activations do.
        maps: float [N, C, h, w].

    Returns:
        The last maps, and the statistics, float [N, 2 x channels of all stages], without gradient.
    """
    means, squares = [], []
    for stage in stages:
        maps = stage(maps)
        if isinstance(stage, nn.ReLU) or (len(list(stage.children())) and not isinstance(stage, nn.Conv2d)):
            seen = maps.detach().float()
            means.append(seen.mean(dim=(2, 3)))
            squares.append(seen.square().mean(dim=(2, 3)))
    mean = torch.cat(means, dim=1)
    deviation = (torch.cat(squares, dim=1) - mean.square()).clamp(min=0.0).sqrt()
    channels = [int(part.shape[1]) for part in means]
    pairs = zip(torch.split(mean, channels, dim=1), torch.split(deviation, channels, dim=1), strict=True)
    return maps, torch.cat([part for pair in pairs for part in pair], dim=1)


def _angle_net(architecture: dict[str, Any]) -> nn.Module:
    width, height = architecture["image_size"]
    return AngleNet(
        (width, height),
        architecture["joints"],
        backbone=architecture["backbone"],
        dropout=architecture["dropout"],
        codes=architecture["codes"],
    )


KINDS["angle"] = _angle_net


def nearest_code(values: Tensor, codebook: Tensor) -> Tensor:
    """Each value's nearest entry of its column's codebook.

    Args:
        values: float [N, J].
        codebook: float [J, V].

    Returns:
        float [N, J], with the gradient of the codebook.
    """
    index = (values.detach()[:, :, None] - codebook.detach()).abs().argmin(dim=2)
    return codebook.expand(values.shape[0], -1, -1).gather(2, index[:, :, None])[:, :, 0]


class BlurPool(nn.Module):
    """Halves maps after a binomial blur, so that what moves by a pixel moves the output by half a one.

    The blur is [1 2 1] / 4 each way with reflected borders (Zhang, arXiv 1904.11486).
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        tap = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", torch.outer(tap, tap).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """float [N, C, h, w] to [N, C, ceil(h / 2), ceil(w / 2)]."""
        padded = F.pad(maps, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.kernel, stride=2, groups=maps.shape[1])


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where the number of channels changes."""

    def __init__(self, previous: int, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(previous, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if previous != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(previous, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """float [N, previous, h, w] to [N, channels, h, w]."""
        return F.relu(self.branch(maps) + self.shortcut(maps))


def _strided(planes: int, width: int, height: int) -> tuple[nn.Sequential, int, int]:
    """Four strided convolutions to 128 channels, and the size of their maps."""
    layers: list[nn.Module] = []
    previous = planes
    for channels in (16, 32, 64, 128):
        layers += _strided_layer(previous, channels)
        previous, width, height = channels, (width + 1) // 2, (height + 1) // 2
    return nn.Sequential(*layers), width, height


def _strided_layer(previous: int, channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(previous, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]


def _residual(planes: int, size: Residual, width: int, height: int) -> tuple[nn.Sequential, int, int, int]:
    """A residual backbone, its channels, and the size of its maps.

    The first convolution is strided, as at full resolution it would cost more than all the rest; each later halving
    is a blur-pool.
    """
    layers = _strided_layer(planes, size.width)
    previous = channels = size.width
    width, height = (width + 1) // 2, (height + 1) // 2
    while True:
        for _ in range(size.blocks):
            layers.append(ResidualBlock(previous, channels))
            previous = channels
        if max(width, height) <= _COARSEST:
            return nn.Sequential(*layers), channels, width, height
        layers.append(BlurPool(channels))
        channels = min(2 * channels, 8 * size.width)
        width, height = (width + 1) // 2, (height + 1) // 2


def _coordinates(image_size: tuple[int, int]) -> Tensor:
    """Column and row of every pixel, each in -1..1: float [1, 2, height, width]."""
    width, height = image_size
    rows, columns = torch.meshgrid(torch.linspace(-1.0, 1.0, height), torch.linspace(-1.0, 1.0, width), indexing="ij")
    return torch.stack([columns, rows])[None]
