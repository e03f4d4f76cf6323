"""A second look at the arm: small pictures at the camera's resolution, cut where the kinematics says the arm is.

The first network sees the whole region made small, in which the wrist is a few pixels. From its angles, forward
kinematics and a camera found without labels (`ropes_ros.learning.camera`) tell where the elbow and the tool are; a
second network looks at both places closely, and at how far they are from where they were expected, and corrects the
angles. It learns from the same likelihood of commanded levels, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.learning import networks
from ropes_ros.learning.camera import Camera
from ropes_ros.learning.kinematics import Kinematics
from ropes_ros.learning.networks import LOG_STD_RANGE, Prediction, with_statistics

SIDE = 64
"""Width and height of a glimpse in its own pixels."""
MARGIN = 2.0
"""Most that the side of the cuttings may be that training glimpses are taken from, in sides of a glimpse."""
MOST_SPANNED = 2 * SIDE
"""Pixels along a side up to which a glimpse is sampled by products."""
REACHES = (0.2, 0.28)
"""Half the side of the glimpses of elbow and tool in space, as shares of the length of the chain to the tip."""
CORRECTION = 0.3
"""Angles, in half ranges, that a unit of the second network's output corrects by."""


class Aim(nn.Module):
    """Where glimpses are taken: from normalised angles to the pixels of their centres.

    Attributes:
        weights: float [M, J + 1], each row the point that glimpse m looks at, as a mixture of joint origins and tip.
        spacing: float [M], pixels of the region from one pixel of a glimpse to the next.
    """

    weights: Tensor
    spacing: Tensor

    def __init__(self, parents: Sequence[int], tip_parent: int, glimpses: int) -> None:
        super().__init__()
        self.kinematics = Kinematics(parents, tip_parent)
        self.camera = Camera()
        self.register_buffer("weights", torch.zeros(glimpses, len(self.kinematics.parents) + 1))
        self.register_buffer("spacing", torch.ones(glimpses))

    @classmethod
    def at(cls, kinematics: Kinematics, camera: Camera) -> Aim:
        """Look at the middle of the chain, and at the tip."""
        aim = cls(kinematics.parents, kinematics.tip_parent, len(REACHES))
        aim.kinematics, aim.camera = kinematics, camera
        joints = len(kinematics.parents)
        home = kinematics(torch.zeros(1, joints))[0]
        along = torch.cat([torch.zeros(1), (home[1:] - home[:-1]).norm(dim=1).cumsum(0)])
        aim.weights[0, int((along - 0.5 * along[-1]).abs().argmin())] = 1.0
        aim.weights[1, -1] = 1.0
        poses = torch.rand((512, joints), generator=torch.Generator().manual_seed(0))
        pixels = float(along[-1]) * camera.scale(kinematics(2.0 * poses - 1.0).mean(dim=(0, 1)))
        aim.spacing.copy_(torch.tensor(REACHES) * (2.0 * pixels / SIDE))
        return aim

    def forward(self, angle: Tensor) -> Tensor:
        """Normalised angles float [N, J] to pixels (x, y) of the glimpses' centres, float [N, M, 2]."""
        centres: Tensor = self.camera(self.weights @ self.kinematics(angle))
        return centres


class GlimpseNet(nn.Module):
    """Angles from glimpses and a first guess.

    Args:
        joints: Number of joints J.
        glimpses: Number of glimpses M.
        channels: Output channels of each glimpse's strided convolutions.
        units: Units of the hidden layer.
        dropout: Probability with which a hidden unit is dropped in training.
    """

    def __init__(
        self,
        joints: int,
        glimpses: int,
        *,
        channels: Sequence[int] = (16, 32, 64, 96),
        units: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.joints = joints
        self.stems = nn.ModuleList()
        for _ in range(glimpses):
            layers: list[nn.Module] = []
            previous = 3
            for count in channels:
                layers += [
                    nn.Conv2d(previous, count, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(count),
                    nn.ReLU(inplace=True),
                ]
                previous = count
            self.stems.append(nn.Sequential(*layers))
        cells = (SIDE // 2 ** len(channels)) ** 2
        self.hidden = nn.Sequential(
            nn.Linear(glimpses * previous * cells + joints, units),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(units, units // 2),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(units // 2, 2 * joints)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.head.bias[joints:] = -2.0

    def forward(self, glimpses: Tensor, guess: Tensor) -> Prediction:
        """Correct a guess.

        Args:
            glimpses: float [N, M, 3, SIDE, SIDE], RGB in 0..1, taken where `Aim` says of the guess.
            guess: Normalised angles, float [N, J].
        """
        seen, features = [], []
        for number, stem in enumerate(self.stems):
            maps, statistics = with_statistics(cast(nn.Sequential, stem), _planes(glimpses, number))
            seen.append(maps.flatten(1))
            features.append(statistics)
        prediction = self.read(torch.cat(seen, dim=1), guess)
        return prediction._replace(features=torch.cat([prediction.features, *features], dim=1))

    def trunk(self, glimpses: Tensor) -> Tensor:
        """Maps of glimpses, one after the other, float [N, M x channels x cells]; arguments as of `forward`."""
        return torch.cat([stem(_planes(glimpses, number)).flatten(1) for number, stem in enumerate(self.stems)], dim=1)

    def read(self, maps: Tensor, guess: Tensor) -> Prediction:
        """Correct a guess from what `trunk` gave; the features are the hidden activations alone."""
        hidden = self.hidden(torch.cat([maps, guess], dim=1))
        change, raw = self.head(hidden).split(self.joints, dim=1)
        return Prediction(guess + CORRECTION * change, raw.clamp(*LOG_STD_RANGE), hidden)


def _planes(glimpses: Tensor, number: int) -> Tensor:
    return (glimpses[:, number] - 0.5) * 4.0


class CascadeNet(nn.Module):
    """First network and second look as one: what a refined checkpoint holds.

    Args:
        architecture: As `architecture` gives it.
    """

    sees_region = True
    base: Any

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        super().__init__()
        self._architecture = dict(architecture)
        self.base = networks.build(architecture["base"])
        self.image_size: tuple[int, int] = self.base.image_size
        self.joints: int = self.base.joints
        self.aim = Aim(architecture["parents"], architecture["tip_parent"], architecture["glimpses"])
        self.look = GlimpseNet(self.joints, architecture["glimpses"])

    @classmethod
    def of(cls, base: Any, aim: Aim) -> CascadeNet:
        """A cascade with a trained first network and an untrained second one."""
        made = cls(
            {
                "kind": "cascade",
                "base": base.architecture(),
                "parents": list(aim.kinematics.parents),
                "tip_parent": aim.kinematics.tip_parent,
                "glimpses": len(aim.weights),
            }
        )
        made.base, made.aim = base, aim
        return made

    def architecture(self) -> dict[str, Any]:
        """What `networks.build` makes an equal, untrained network from."""
        return dict(self._architecture)

    def forward(self, images: Tensor, region: Tensor) -> Prediction:
        """Predict from the same pictures at two resolutions.

        Args:
            images: float [N, 3, h, w], RGB in 0..1, at the first network's size.
            region: float [N, 3, H, W], RGB in grey levels 0..255, as the camera gives it.
        """
        first = self.base(images)
        guess = bounded(first.angle)
        second = self.look(sample(region, self.aim(guess), self.aim.spacing) / 255.0, guess)
        return Prediction(second.angle, second.log_std, torch.cat([first.features, second.features], dim=1))


def bounded(angle: Tensor) -> Tensor:
    """A guess, float [N, J], held near the commanded range."""
    return angle.clamp(-1.1, 1.1)


def sample(region: Tensor, centres: Tensor, spacing: Tensor) -> Tensor:
    """Glimpses of a region, bilinearly; beyond its edge the last pixel is repeated.

    What a glimpse spans is cut out, and sampled as a product for rows and one for columns: a glimpse is upright, and
    runtimes multiply faster than they look up single pixels. Where it spans far more than it needs, it is looked up.

    Args:
        region: float [N, 3, H, W].
        centres: Pixels (x, y), float [N, M, 2].
        spacing: float [M], pixels from one pixel of a glimpse to the next.

    Returns:
        float [N, M, 3, SIDE, SIDE].
    """
    height, width = int(region.shape[2]), int(region.shape[3])
    size = torch.tensor([width, height], device=region.device)
    place = (torch.arange(SIDE, device=region.device) - 0.5 * (SIDE - 1)) * spacing[:, None]
    wanted = (centres[..., None] + place[:, None]).clamp(min=0.0).minimum(size[:, None] - 1.0)
    spans = [int(np.ceil((SIDE - 1) * float(step))) + 2 for step in spacing]
    near = [number for number, span in enumerate(spans) if span <= MOST_SPANNED]
    chosen = wanted if len(near) == len(spans) else wanted[:, near]
    cuttings = _multiplied(region, chosen, [spans[number] for number in near]) if near else []
    taken = dict(zip(near, cuttings, strict=True))
    for number in range(len(spans)):
        if number not in taken:
            grid = (wanted[:, number] + 0.5) / size[:, None] * 2.0 - 1.0
            x, y = grid[:, 0, None, :].expand(-1, SIDE, -1), grid[:, 1, :, None].expand(-1, -1, SIDE)
            places = torch.stack([x, y], dim=-1)
            taken[number] = F.grid_sample(region, places, padding_mode="border", align_corners=False)
    return torch.stack([taken[number] for number in range(len(spans))], dim=1)


def _multiplied(region: Tensor, wanted: Tensor, spans: list[int]) -> list[Tensor]:
    """Glimpses as products.

    Args:
        region: float [N, 3, H, W].
        wanted: Pixels (x, y) of their columns and rows, float [N, M, 2, SIDE], increasing, within the region.
        spans: Pixels that each glimpse spans at most.

    Returns:
        float [N, 3, SIDE, SIDE] each.
    """
    height, width = int(region.shape[2]), int(region.shape[3])
    size = torch.tensor([width, height], device=region.device)
    room = (size - torch.tensor(spans, device=region.device)[:, None]).clamp(min=0)
    begin = wanted[..., :1].floor().minimum(room[..., None].float())
    touched = begin + torch.arange(max(spans), device=region.device)
    weights = F.relu(1.0 - (wanted[..., None] - touched[..., None, :]).abs())
    pixels = region.permute(0, 2, 3, 1).reshape(-1, 3)
    first = touched.long() * torch.tensor([[1], [width]], device=region.device)
    one = 0.0 * begin[:, 0, :1] + 1.0  # a frame, however many there are when this is exported
    whole = height * width * (one.cumsum(dim=0) - 1.0).long()
    taken = []
    for number, most in enumerate(spans):
        along, down = min(most, width), min(most, height)
        index = whole + first[:, number, 1, :down, None] + first[:, number, 0, None, :along]
        cutting = pixels[index].permute(0, 3, 1, 2)
        across = weights[:, number, 0, None, :, :along].transpose(2, 3)
        taken.append(weights[:, number, 1, None, :, :down] @ cutting @ across)
    return taken


def cut(
    pixels: NDArray[np.uint8], centre: NDArray[np.float32], spacing: float, side: int, out: NDArray[np.uint8]
) -> None:
    """The same for one picture and one glimpse, on the CPU and in whole grey levels.

    Args:
        pixels: uint8 [H, W, 3].
        centre: Pixel (x, y) of the glimpse's centre, float [2].
        spacing: Pixels from one pixel of the glimpse to the next.
        side: Width and height of the glimpse.
        out: uint8 [side, side, 3], where it goes.
    """
    start = centre - 0.5 * (side - 1) * spacing
    place = np.array([[spacing, 0.0, start[0]], [0.0, spacing, start[1]]], dtype=np.float32)
    cv2.warpAffine(
        pixels,
        place,
        (side, side),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


networks.KINDS["cascade"] = CascadeNet
