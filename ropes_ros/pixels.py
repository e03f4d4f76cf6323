"""Pixels of many frames on disk without loss: each frame a Zstandard frame of its own, read in any order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from ropes_ros.errors import RopesError

_PIXEL_FILE, _INDEX_FILE = "pixels.zst", "pixels.npz"
_LEVEL = 3
"""Compression level: drawn pictures of 256x240 take about 3.5 kB at some 9,000 a second; level 9 saves 5 % more."""


class PixelStore:
    """Frames of one size that `write_pixels` stored; a `dataset.PixelSource`. Reading is safe from several threads.

    Args:
        folder: Folder that `write_pixels` filled.

    Raises:
        RopesError: The folder holds no such files, or they are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _PIXEL_FILE
        try:
            with np.load(folder / _INDEX_FILE) as index:
                self._offsets, (height, width) = index["offsets"], index["size"].tolist()
            self._data = np.memmap(self._path, dtype=np.uint8, mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise RopesError(f"{folder}: no stored pixels can be read ({error}); delete the folder") from None
        if len(self._data) != self._offsets[-1]:
            raise RopesError(f"{self._path}: {len(self._data)} bytes instead of {self._offsets[-1]}; delete the folder")
        self.size: tuple[int, int] = (width, height)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pixels of chosen frames.

        Args:
            indices: int64 [n], positions in 0..len - 1, in any order.

        Returns:
            uint8 [n, H, W, 3] RGB, a new array.

        Raises:
            RopesError: The file is damaged.
        """
        width, height = self.size
        pixels = np.empty((len(indices), height, width, 3), dtype=np.uint8)
        unpacker = zstandard.ZstdDecompressor()
        for row, index in zip(pixels, np.asarray(indices).tolist(), strict=True):
            packed = self._data[self._offsets[index] : self._offsets[index + 1]].tobytes()
            try:
                row[...] = np.frombuffer(unpacker.decompress(packed), dtype=np.uint8).reshape(row.shape)
            except (zstandard.ZstdError, ValueError) as error:
                raise RopesError(f"{self._path}: frame {index} is damaged ({error}); delete the folder") from None
        return pixels


def write_pixels(folder: Path, frames: Iterable[NDArray[np.uint8]]) -> PixelStore:
    """Store frames in the order given.

    Args:
        folder: An existing folder.
        frames: At least one, each uint8 [H, W, 3], all of one size.

    Raises:
        RopesError: There are no frames, or they differ in size.
    """
    packer = zstandard.ZstdCompressor(level=_LEVEL)
    ends = [0]
    shape: tuple[int, ...] | None = None
    with (folder / _PIXEL_FILE).open("wb") as stream:
        for frame in frames:
            if shape is None:
                shape = frame.shape
            if frame.shape != shape:
                raise RopesError(f"{folder}: frame {len(ends) - 1} is {frame.shape}, the ones before are {shape}")
            ends.append(ends[-1] + stream.write(packer.compress(frame.tobytes())))
    if shape is None:
        raise RopesError(f"{folder}: there are no frames to store")
    np.savez(folder / _INDEX_FILE, offsets=np.array(ends, dtype=np.int64), size=np.array(shape[:2], dtype=np.int64))
    return PixelStore(folder)
