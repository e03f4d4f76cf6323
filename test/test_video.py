"""The video of a bag: its frames, its rate, what it says of them, and what it leaves out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import camera_info_cdr, familiar, header, image_cdr, message, serialize, unfamiliar

from ropes_ros import cli
from ropes_ros.bags import TOPICS, BagWriter, OfferedQos
from ropes_ros.encoder import Encoder
from ropes_ros.errors import RopesError
from ropes_ros.robot import load_robot
from ropes_ros.video import film

START_NS = 1_700_000_000_000_000_000
STEP_NS = 40_000_000
SIZE = (64, 48)
FRAMES, NOVEL = 20, (7, 8)


def static_transforms(parent: str, child: str) -> bytes:
    vector = message("geometry_msgs/msg/Vector3", x=-2.0, y=0.0, z=0.5)
    turn = message("geometry_msgs/msg/Quaternion", x=-0.5, y=0.5, z=-0.5, w=0.5)
    transform = message(
        "geometry_msgs/msg/TransformStamped",
        header=header(START_NS, parent),
        child_frame_id=child,
        transform=message("geometry_msgs/msg/Transform", translation=vector, rotation=turn),
    )
    return serialize(message("tf2_msgs/msg/TFMessage", transforms=[transform]))


def write_bag(path: Path, *, placed: bool = True) -> Path:
    """Twenty images at 25 a second, two of noise, and one with the stamp of its predecessor."""
    with BagWriter(path, robot="arm6") as writer:
        writer.add_topic(TOPICS["image"], "sensor_msgs/msg/Image")
        writer.add_topic(TOPICS["camera_info"], "sensor_msgs/msg/CameraInfo")
        writer.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", OfferedQos(transient_local=True, depth=1))
        writer.write(TOPICS["camera_info"], camera_info_cdr(START_NS, SIZE), START_NS)
        if placed:
            writer.write("/tf_static", static_transforms("base_link", "camera_optical"), START_NS)
        for number in range(FRAMES):
            stamp_ns = START_NS + STEP_NS * number
            picture = unfamiliar(number, SIZE) if number in NOVEL else familiar(number % 8, SIZE)
            writer.write(TOPICS["image"], image_cdr(stamp_ns, picture), stamp_ns)
            if number == 12:
                writer.write(TOPICS["image"], image_cdr(stamp_ns, picture), stamp_ns + 1)
    return path


def frames_of(video: Path) -> tuple[list[NDArray[np.uint8]], float]:
    capture = cv2.VideoCapture(str(video))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame[:, :, ::-1])


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder(tiny_model)


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_every_image_is_a_frame_that_says_its_state(tmp_path: Path, encoder: Encoder, name: str) -> None:
    done: list[tuple[int, int]] = []
    filmed = film(
        encoder,
        load_robot("arm6"),
        write_bag(tmp_path / "bag"),
        tmp_path / name,
        progress=lambda *now: done.append(now),
    )
    assert filmed.out_of_order == 1
    assert filmed.arm == ""
    assert done[-1] == (FRAMES + 1, FRAMES + 1)
    assert filmed.estimates.position.shape == (FRAMES, 6)
    np.testing.assert_array_equal(filmed.estimates.stamps_ns, START_NS + STEP_NS * np.arange(FRAMES))
    frames, rate = frames_of(tmp_path / name)
    assert len(frames) == FRAMES
    assert rate == pytest.approx(25.0, rel=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"bag", name}, "nothing partial is left"
    for number, frame in enumerate(frames):
        assert frame.shape == (48, 64, 3)
        red, green, _ = frame[-12:, :24].reshape(-1, 3).astype(int).T
        assert (np.max(red - green) > 40) == (number in NOVEL), "green OK, orange NOVEL"


def test_a_bag_without_the_cameras_place_is_filmed_without_the_arm(tmp_path: Path, encoder: Encoder) -> None:
    filmed = film(encoder, load_robot("arm6"), write_bag(tmp_path / "bag", placed=False), tmp_path / "out.avi")
    assert "/tf_static does not lead from base_link to camera_optical" in filmed.arm


def test_what_cannot_be_written_is_told(tmp_path: Path, encoder: Encoder) -> None:
    bag, robot = write_bag(tmp_path / "bag"), load_robot("arm6")
    with pytest.raises(RopesError, match=r"out\.gif: a video's name ends with \.mp4 or \.avi"):
        film(encoder, robot, bag, tmp_path / "out.gif")
    with pytest.raises(RopesError, match="the video cannot be written"):
        film(encoder, robot, bag, tmp_path / "nowhere" / "out.avi")


def test_the_command_films(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ropes(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ropes", *map(str, arguments)])
        try:
            status = cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capfd.readouterr()
        return status, " ".join(said.out.split()), said.err

    bag, out = write_bag(tmp_path / "bag"), tmp_path / "out.avi"
    status, said, err = ropes("estimate", bag, "--model", tiny_model, "--video", out)
    assert status == 0, err
    assert "25.0 frames/s, 1 images out of order left out" in said
    assert "drawn at the filtered estimate" in said
    assert len(frames_of(out)[0]) == FRAMES
    status, _, err = ropes("estimate", "camera/image_raw", "--model", tiny_model, "--video", out)
    assert status == 1
    assert "--video need a bag" in err
