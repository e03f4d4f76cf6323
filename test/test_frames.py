"""From image messages to pictures of the model's size."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ropes_ros.errors import RopesError
from ropes_ros.frames import FrameReader

SIZE = (64, 48)


def raw(pixels: NDArray[np.uint8], encoding: str = "rgb8") -> SimpleNamespace:
    height, width, channels = pixels.shape
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=channels * width,
        data=np.ascontiguousarray(pixels).reshape(-1),
    )


def picture(number: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)


def test_rgb_is_a_view_and_others_are_converted_into_the_same_memory() -> None:
    read = FrameReader("camera")
    message = raw(picture(0))
    assert np.shares_memory(read(message, SIZE), message.data)
    first = read(raw(picture(1)[..., ::-1], "bgr8"), SIZE)
    np.testing.assert_array_equal(first, picture(1))
    second = read(raw(picture(2)[..., ::-1], "bgr8"), SIZE)
    np.testing.assert_array_equal(second, picture(2))
    assert np.shares_memory(first, second)


@pytest.mark.parametrize(("encoding", "size"), [("rgb8", SIZE), ("bgr8", SIZE), ("bgr8", (128, 96))])
def test_nothing_is_allocated_from_frame_to_frame(encoding: str, size: tuple[int, int]) -> None:
    read = FrameReader("camera", resize=True)
    messages = [raw(picture(number, size), encoding) for number in range(4)]
    read(messages[0], SIZE)
    tracemalloc.start()
    for message in messages * 5:
        read(message, SIZE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 48, "less than a picture"


def test_compressed_images_of_another_size_are_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = cv2.imencode(".jpg", picture(0, (640, 480)))[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(RopesError, match="camera: images are 640x480, the model takes 64x48; use the camera"):
        FrameReader("camera")(SimpleNamespace(data=jpeg), SIZE)


def test_images_are_scaled_where_their_shape_fits() -> None:
    read = FrameReader("camera", resize=True)
    large = np.repeat(np.repeat(picture(3), 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(read(raw(large), SIZE), picture(3))
    png = cv2.imencode(".png", large[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(read(SimpleNamespace(data=png), SIZE), picture(3))
    with pytest.raises(RopesError, match="camera: images of 64x40 have another shape than the model's 64x48"):
        read(raw(picture(0, (64, 40))), SIZE)
