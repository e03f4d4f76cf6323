"""How the surroundings of one picture look: lamps, table, where the camera stands, things in the scene, patches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Solid(NamedTuple):
    """A body that is only seen: it touches nothing and casts no shadow.

    Attributes:
        shape: "box", "sphere", "ellipsoid", "cylinder" or "capsule".
        size: (3,) in m as MuJoCo's geoms have it: half edges, radii, or radius and half length.
        position: (3,) in m in the base frame.
        rotation: (3, 3), the body's axes in the base frame.
        rgb: (3,) in 0..1.
    """

    shape: str
    size: Array
    position: Array
    rotation: Array
    rgb: Array


class Patch(NamedTuple):
    """Pixels that are laid over the picture; what lies outside the picture is cut off.

    Attributes:
        left, top: Of the upper left corner, in pixels of the picture.
        pixels: uint8 [h, w, 3] RGB.
        mask: bool [h, w]: which of them are laid over.
    """

    left: int
    top: int
    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]

    def lay_over(self, picture: npt.NDArray[np.uint8]) -> None:
        """Lay the patch over a picture, uint8 [H, W, 3], in place."""
        height, width = self.mask.shape
        rows = slice(max(0, self.top), max(0, self.top + height))
        columns = slice(max(0, self.left), max(0, self.left + width))
        target = picture[rows, columns]
        first_row, first_column = rows.start - self.top, columns.start - self.left
        part = np.s_[first_row : first_row + target.shape[0], first_column : first_column + target.shape[1]]
        target[self.mask[part]] = self.pixels[part][self.mask[part]]


class Look(NamedTuple):
    """What differs in one picture from the simulation's own surroundings; None leaves a thing as it is.

    Attributes:
        lamp_direction: (3,) in which the lamp's light travels, in the base frame; of any length.
        lamp_rgb: (3,) brightness of the lamp, 0..1.
        ambient_rgb: (3,) brightness of the light from everywhere, 0..1.
        bulb_position: (3,) in m in the base frame of a second lamp, which shines over the half space towards the base;
            it is off when None.
        bulb_rgb: (3,) brightness of the second lamp, 0..1.
        table_rgb: (3,) colour of the table, 0..1.
        camera_shift: (3,) in m by which the camera is moved, along its own axes: right, up, back.
        camera_turn: (3,) rotation vector in rad about these axes by which the camera is turned.
        solids: Bodies in the scene.
        patches: Pixels laid over the picture, in order.
    """

    lamp_direction: Array | None = None
    lamp_rgb: Array | None = None
    ambient_rgb: Array | None = None
    bulb_position: Array | None = None
    bulb_rgb: Array | None = None
    table_rgb: Array | None = None
    camera_shift: Array | None = None
    camera_turn: Array | None = None
    solids: tuple[Solid, ...] = ()
    patches: tuple[Patch, ...] = ()


PLAIN = Look()
"""The simulation's own surroundings."""
