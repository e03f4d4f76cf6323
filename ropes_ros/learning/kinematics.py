"""Forward kinematics of a robot as a differentiable, exportable function of normalised joint angles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.robot import Robot


class Kinematics(nn.Module):
    """Where the joints and the tip of a robot are, in the base link's frame.

    Made empty, so that its constants can come out of a checkpoint; `of` makes that of a robot. A joint's motion is the
    exponential of its twist (Lynch and Park, Modern Robotics, sec. 3.3 and 4.1; the axes are of unit length).

    Args:
        parents: Index of each joint's parent joint, -1 for the base.
        tip_parent: Index of the joint that carries the tip.
    """

    placements: Tensor
    turns: Tensor
    slides: Tensor
    tip: Tensor
    home: Tensor
    half_range: Tensor

    def __init__(self, parents: Sequence[int], tip_parent: int) -> None:
        super().__init__()
        self.parents = tuple(parents)
        self.tip_parent = tip_parent
        joints = len(self.parents)
        self.order = sorted(range(joints), key=self._depth)
        self.register_buffer("placements", torch.eye(4).repeat(joints, 1, 1))
        self.register_buffer("turns", torch.zeros(joints, 3, 3))
        self.register_buffer("slides", torch.zeros(joints, 3))
        self.register_buffer("tip", torch.zeros(3))
        self.register_buffer("home", torch.zeros(joints))
        self.register_buffer("half_range", torch.ones(joints))

    @classmethod
    def of(cls, robot: Robot) -> Kinematics:
        """The kinematics of a robot."""
        chain = robot.chain()
        made = cls(chain.parents, chain.tip_parent)
        for buffer, values in (
            (made.placements, chain.placements),
            (made.turns, _skew(chain.twists[:, 3:])),
            (made.slides, chain.twists[:, :3]),
            (made.tip, chain.tip[:3, 3]),
            (made.home, robot.home),
            (made.half_range, robot.half_range),
        ):
            buffer.copy_(torch.from_numpy(values))
        return made

    def forward(self, angle: Tensor) -> Tensor:
        """Origins of the frames that joints move, then the tip's.

        Args:
            angle: Normalised joint angles u, float [N, J].

        Returns:
            float [N, J + 1, 3], m.
        """
        position = (self.home + self.half_range * angle)[:, :, None, None]
        motions = torch.split(self._motions(position), 1, dim=1)
        places: dict[int, Tensor] = {}
        for joint in self.order:
            parent = self.parents[joint]
            places[joint] = motions[joint] if parent < 0 else places[parent] @ motions[joint]
        origins = torch.cat([places[joint] for joint in range(len(self.parents))], dim=1)[..., :3, 3]
        carrier = places[self.tip_parent]
        tip = carrier[..., :3, :3] @ self.tip + carrier[..., :3, 3]
        return torch.cat([origins, tip], dim=1)

    def _motions(self, position: Tensor) -> Tensor:
        """Each joint's frame in its parent's, float [N, J, 4, 4], from positions [N, J, 1, 1]."""
        turns, slides = torch.zeros_like(self.placements), torch.zeros_like(self.placements)
        turns[:, :3, :3], slides[:, :3, 3] = self.turns, self.slides
        by_sine, by_rest, by_slide = (self.placements @ part for part in (turns, turns @ turns, slides))
        rest = 1.0 - torch.cos(position)
        return self.placements + torch.sin(position) * by_sine + rest * by_rest + position * by_slide

    def _depth(self, joint: int) -> int:
        return 0 if joint < 0 else 1 + self._depth(self.parents[joint])


def _skew(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross-product matrices [J, 3, 3] of vectors [J, 3]."""
    return np.cross(vectors[:, None, :], np.eye(3)).swapaxes(1, 2)
