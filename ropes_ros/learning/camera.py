"""Where the camera stands, found without labels: the pose in which the arm's kinematics covers what moves.

A first encoder's angles put the arm's links into space; a camera pose is good when their projections fall on pixels
that differ from the background *in that frame more than they do on average*. The average is taken off, so that looking
at a place where something always moves earns nothing. Neither intrinsics nor a target are needed, and the result is
exact enough to say where in the image to look closer; it is no calibration (focal length and distance are hard to tell
apart).
"""

from __future__ import annotations

import math
from itertools import product

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.learning.kinematics import Kinematics

FRAMES = 1000
"""Frames that the camera is sought in."""
CELL = 4
"""Pixels along one side of the cells in which the silhouette is kept."""
DIFFERENT = 30
"""Grey levels by which a pixel of the arm differs from the background, in any colour."""
POINTS_A_LINK = 4
FOCALS = (1.0, 2.0)
"""Focal lengths tried at first, in widths of the camera's image."""
DISTANCES = (0.8, 1.0, 1.3)
"""Distances tried at first, as shares of the one at which the arm is as large as what moves."""
ELEVATIONS = (-10.0, 10.0, 30.0, 50.0, 70.0)
AZIMUTHS = 24
CANDIDATES = 10
BLURS = (5.0, 2.5, 1.2)
"""Blur of the silhouettes in cells, from coarse to fine."""
_BATCH = 200


class Camera(nn.Module):
    """A pinhole without distortion; its numbers are buffers, so that they travel with a checkpoint.

    Pixels are those of the region that the network sees, the first one's centre at (0, 0).
    """

    rotation: Tensor
    translation: Tensor
    focal: Tensor
    centre: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rotation", torch.eye(3))
        self.register_buffer("translation", torch.zeros(3))
        self.register_buffer("focal", torch.ones(()))
        self.register_buffer("centre", torch.zeros(2))

    def forward(self, points: Tensor) -> Tensor:
        """Points float [..., 3] in m in the base link's frame, as pixels (x, y) float [..., 2]."""
        return _project(points, self.rotation, self.translation, self.focal, self.centre)

    @torch.no_grad()
    def scale(self, points: Tensor) -> float:
        """Pixels per metre at the points' mean depth."""
        depth = points @ self.rotation[2] + self.translation[2]
        return float(self.focal / depth.mean())


def find_camera(
    kinematics: Kinematics,
    angle: NDArray[np.float64],
    images: NDArray[np.uint8],
    *,
    width: int,
    centre: tuple[float, float],
    seed: int = 0,
) -> Camera:
    """Fit a camera to frames.

    Args:
        kinematics: Of the robot.
        angle: Normalised joint angles that an encoder gave, float64 [n, J].
        images: The frames' regions at the camera's resolution, uint8 [n, H, W, 3].
        width: Width of the camera's whole image in pixels.
        centre: The whole image's centre in the region's pixels, taken for the principal point.
        seed: Source of the order in which frames are looked at.
    """
    height, breadth = images.shape[1:3]
    silhouettes = _silhouettes(images)
    blurred = [_excess(silhouettes, blur) for blur in BLURS]
    points = _links(kinematics(torch.from_numpy(angle).float().clamp(-1.0, 1.0)))
    size = torch.tensor([breadth, height], dtype=torch.float32)
    middle = torch.tensor(centre, dtype=torch.float32)
    order = torch.Generator().manual_seed(seed)

    def excess(camera: Tensor, maps: Tensor, chosen: Tensor | slice) -> Tensor:
        """Mean over points and frames of the silhouette under the links, above its average there."""
        pixels = _project(points[chosen], _rotation(camera[:3]), camera[3:6], camera[6].exp(), middle)
        places = ((pixels + 0.5) / size * 2.0 - 1.0)[:, None]
        return F.grid_sample(maps[chosen], places, align_corners=False).mean()

    def climb(start: Tensor, maps: Tensor, rate: float, steps: int) -> Tensor:
        camera = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([camera], lr=rate)
        for _ in range(steps):
            chosen = torch.randint(0, len(points), (_BATCH,), generator=order)
            loss = -excess(camera, maps, chosen)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return camera.detach()

    with torch.no_grad():
        starts = _starts(points, silhouettes, width)
        found = [float(excess(start, blurred[0], slice(0, _BATCH))) for start in starts]
    best = [starts[number] for number in np.argsort(found)[::-1][:CANDIDATES]]
    best = [climb(start, blurred[0], 0.03, 100) for start in best]
    with torch.no_grad():
        found = [float(excess(camera, blurred[1], slice(None))) for camera in best]
    winner = best[int(np.argmax(found))]
    for maps, rate in ((blurred[1], 0.01), (blurred[2], 0.004), (blurred[2], 0.001)):
        winner = climb(winner, maps, rate, 200)
    camera = Camera()
    camera.rotation.copy_(_rotation(winner[:3]))
    camera.translation.copy_(winner[3:6])
    camera.focal.copy_(winner[6].exp())
    camera.centre.copy_(middle)
    return camera


def _silhouettes(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of each cell that differs from the background (the median image), float32 [n, H / CELL, W / CELL]."""
    background = np.median(images[:: max(1, len(images) // 300)], axis=0).astype(np.int16)
    height, width = images.shape[1:3]
    cells = (max(1, width // CELL), max(1, height // CELL))
    masks = [
        (np.abs(image.astype(np.int16) - background).max(axis=-1) > DIFFERENT).astype(np.float32) for image in images
    ]
    return np.stack([cv2.resize(mask, cells, interpolation=cv2.INTER_AREA) for mask in masks])


def _excess(silhouettes: NDArray[np.float32], blur: float) -> Tensor:
    """Blurred silhouettes less their mean over frames, float [n, 1, h, w]."""
    soft = np.stack([cv2.GaussianBlur(mask, (0, 0), blur, borderType=cv2.BORDER_CONSTANT) for mask in silhouettes])
    return torch.from_numpy(soft - soft.mean(axis=0))[:, None]


def _links(points: Tensor) -> Tensor:
    """Points along the lines from each joint to the next and to the tip, float [n, P, 3]."""
    shares = torch.arange(POINTS_A_LINK) / POINTS_A_LINK
    lines = points[:, :-1, None] + (points[:, 1:] - points[:, :-1])[:, :, None] * shares[None, None, :, None]
    return torch.cat([lines.flatten(1, 2), points[:, -1:]], dim=1)


def _starts(points: Tensor, silhouettes: NDArray[np.float32], width: int) -> list[Tensor]:
    """Cameras all around the arm that look at its middle: rotation vector, translation, log focal length, float [7]."""
    middle = points.mean(dim=(0, 1)).double().numpy()
    reach = float((points - points.mean(dim=(0, 1))).norm(dim=-1).quantile(0.95))
    rows, columns = np.nonzero((silhouettes > 0.5).mean(axis=0) > 0.05)
    span = 0.5 * CELL * max(1, *(int(np.ptp(cells)) if len(cells) else 1 for cells in (rows, columns)))
    starts = []
    for share, away, azimuth, elevation in product(FOCALS, DISTANCES, range(AZIMUTHS), ELEVATIONS):
        focal = share * width
        turn, rise = 2.0 * math.pi * azimuth / AZIMUTHS, math.radians(elevation)
        outward = np.array([math.cos(turn) * math.cos(rise), math.sin(turn) * math.cos(rise), math.sin(rise)])
        position = middle + away * focal * reach / span * outward
        right = np.cross(-outward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(-outward, right), -outward])
        vector = cv2.Rodrigues(rotation)[0][:, 0]
        start = np.concatenate([vector, -rotation @ position, [math.log(focal)]])
        starts.append(torch.from_numpy(start).float())
    return starts


def _rotation(vector: Tensor) -> Tensor:
    """Rotation matrix [3, 3] of a rotation vector [3] (Rodrigues)."""
    angle = vector.norm() + 1e-9
    x, y, z = vector / angle
    zero = torch.zeros_like(x)
    turn = torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])
    return torch.eye(3) + torch.sin(angle) * turn + (1.0 - torch.cos(angle)) * (turn @ turn)


def _project(points: Tensor, rotation: Tensor, translation: Tensor, focal: Tensor, centre: Tensor) -> Tensor:
    seen = points @ rotation.T + translation
    return seen[..., :2] / seen[..., 2:].clamp(min=0.05) * focal + centre
