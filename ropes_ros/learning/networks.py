"""The encoder network: from a small image to every joint's normalised angle, its spread, and features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

LOG_STD_RANGE = (-4.5, -0.7)
"""Bounds of the learned log standard deviation: 0.011 to 0.50 half ranges."""


class Prediction(NamedTuple):
    """What the network says of a batch of N images of a robot with J joints.

    Attributes:
        angle: Normalised joint angles u, float [N, J], half ranges about home.
        log_std: Logarithm of their standard deviation, float [N, J], half ranges.
        features: Hidden activations and the mean of each channel of the last convolution, float [N, F], from which
            novelty is judged: the first see a pose that is unlike, the second a texture that is.
    """

    angle: Tensor
    log_std: Tensor
    features: Tensor


class AngleNet(nn.Module):
    """Four strided convolutions, one hidden layer, and a linear head for all joints.

    The shape follows what a small CPU can train in minutes: few channels while the image is large, many once it
    is small.

    Args:
        image_size: (width, height) of the input in pixels.
        joints: Number of joints J.
        channels: Output channels of the strided convolutions.
        hidden: Units of the hidden layer.
        dropout: Probability with which a hidden unit is dropped in training.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        joints: int,
        *,
        channels: Sequence[int] = (16, 32, 64, 128),
        hidden: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.joints = joints
        layers: list[nn.Module] = []
        previous, (width, height) = 3, image_size
        for count in channels:
            layers += [
                nn.Conv2d(previous, count, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(count),
                nn.ReLU(inplace=True),
            ]
            previous, width, height = count, (width + 1) // 2, (height + 1) // 2
        self.stem = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(previous * width * height, hidden), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 2 * joints)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.head.bias[joints:] = -1.2

    def forward(self, images: Tensor) -> Prediction:
        """Predict from images.

        Args:
            images: float [N, 3, height, width], RGB in 0..1.
        """
        maps = self.stem((images - 0.5) * 4.0)
        hidden = self.hidden(maps)
        angle, raw = self.head(self.dropout(hidden)).split(self.joints, dim=1)
        features = torch.cat([hidden, maps.mean(dim=(2, 3))], dim=1)
        return Prediction(angle, raw.clamp(*LOG_STD_RANGE), features)
