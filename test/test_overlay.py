"""What is drawn over camera images: projection, lenses, the skeleton, bars and state; and where cameras stand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ropes_ros.errors import RopesError
from ropes_ros.overlay import STATE_COLOURS, Camera, Distortion, draw_arm, draw_estimate
from ropes_ros.robot import Robot, load_robot
from ropes_ros.viewpoint import MOST_FRAMES, StaticFrames, camera_of

MATRIX = np.array([[100.0, 0.0, 50.0], [0.0, 100.0, 40.0], [0.0, 0.0, 1.0]])
FORWARD = np.array([-0.5, 0.5, -0.5, 0.5])
"""Orientation of an optical frame that looks along +x with z up in the picture."""
LENSES = {
    "plumb_bob": np.array([-0.3, 0.1, 0.001, -0.002, 0.01]),
    "rational_polynomial": np.array([0.4, -0.2, 0.001, 0.001, 0.02, 0.7, -0.1, 0.01]),
    "equidistant": np.array([0.05, -0.02, 0.01, -0.003]),
}


def test_projection_of_known_points() -> None:
    """A camera at x = -2 that looks along +x: left is up in y, and z is up in the image."""
    matrix = np.array([[100.0, 0.0, 50.0], [0.0, 100.0, 40.0], [0.0, 0.0, 1.0]])
    turn = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    camera = Camera(matrix, np.array([-2.0, 0.0, 0.0]), turn)
    points = np.array([[0.0, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.2], [-3.0, 0.0, 0.0]])
    np.testing.assert_allclose(camera.project(points)[:3], [[50, 40], [40, 40], [50, 30]], atol=1e-9)
    assert np.isnan(camera.project(points)[3]).all()
    same = Camera.from_pose(matrix, camera.position, np.array([-0.5, 0.5, -0.5, 0.5]))
    np.testing.assert_allclose(same.rotation, turn, atol=1e-12)


@pytest.mark.parametrize("model", LENSES)
def test_lenses_bend_as_undistortion_straightens(model: str) -> None:
    """OpenCV's inverse, an iteration of its own, leads back to the pinhole."""
    camera = Camera.from_pose(MATRIX, np.zeros(3), FORWARD, Distortion(model, LENSES[model]))
    plain = Camera.from_pose(MATRIX, np.zeros(3), FORWARD)
    points = np.array([[2.0, 0.3, 0.2], [2.0, -0.5, 0.1], [1.0, 0.2, -0.3], [3.0, 0.0, 0.0]])
    pixels = camera.project(points)
    assert np.abs(pixels - plain.project(points)).max() > 0.5
    straighten = cv2.fisheye.undistortPoints if model == "equidistant" else cv2.undistortPoints
    back = straighten(pixels[:, None], MATRIX, LENSES[model], P=MATRIX).reshape(-1, 2)
    np.testing.assert_allclose(back, plain.project(points), atol=0.05)


def test_points_beyond_a_lens_are_not_folded_back_into_the_picture() -> None:
    camera = Camera.from_pose(MATRIX, np.zeros(3), FORWARD, Distortion("plumb_bob", np.array([-0.3, 0, 0, 0, 0.0])))
    seen, aside, behind = camera.project(np.array([[1.0, 0.5, 0.0], [1.0, 1.8, 0.0], [-1.0, 0.1, 0.0]]))
    np.testing.assert_allclose(seen, [50 - 100 * 0.5 * (1 - 0.3 * 0.25), 40])
    assert np.isnan(aside).all(), "1.8 (1 - 0.3 1.8^2) lies within the picture"
    assert np.isnan(behind).all()


def branching(folder: Path) -> Robot:
    """A trunk along z with an arm to each side; the URDF names the right arm's links between the left one's."""
    joint = (
        '<joint name="{0}" type="{1}"><parent link="{2}"/><child link="{3}"/><origin xyz="{4}"/><axis xyz="1 0 0"/>'
        '<limit lower="-1" upper="1" velocity="1" effort="1"/></joint>'
    )
    links = "".join(f'<link name="{name}"/>' for name in ("base", "left1", "right1", "left2", "right2", "trunk"))
    joints = "".join(
        joint.format(*values)
        for values in (
            ("lift", "fixed", "base", "trunk", "0 0 1"),
            ("left_shoulder", "revolute", "trunk", "left1", "0 0.2 0"),
            ("right_shoulder", "revolute", "trunk", "right1", "0 -0.2 0"),
            ("left_elbow", "revolute", "left1", "left2", "0 0.3 0"),
            ("right_elbow", "revolute", "right1", "right2", "0 -0.3 0"),
        )
    )
    (folder / "two.urdf").write_text(f'<robot name="two">{links}{joints}</robot>')
    (folder / "robot.yaml").write_text(
        "name: two\nurdf: two.urdf\nbase_link: base\ntip_link: left2\njoints:\n"
        "  left_shoulder: {home: 0, half_range: 0.9, max_acceleration: 1}\n"
        "  right_shoulder: {home: 0, half_range: 0.9, max_acceleration: 1}\n"
    )
    return load_robot(folder / "robot.yaml")


def test_links_hang_on_their_parents(tmp_path: Path) -> None:
    """Also below joints that the preset leaves out, which are locked."""
    robot = branching(tmp_path)
    parents = {
        link: robot.links[parent] if parent >= 0 else None
        for link, parent in zip(robot.links, robot.link_parents, strict=True)
    }
    assert parents == {
        "base": None, "trunk": "base", "left1": "trunk", "left2": "left1", "right1": "trunk", "right2": "right1"
    }
    q = np.array([0.3, -0.4])
    expected = np.stack([robot.fk(q, link)[0] for link in robot.links])
    np.testing.assert_allclose(robot.link_positions(q), expected, atol=1e-12)


def test_a_branching_robot_is_drawn_along_its_branches(tmp_path: Path) -> None:
    robot = branching(tmp_path)
    camera = Camera.from_pose(MATRIX, np.array([-2.0, 0.0, 1.0]), FORWARD)
    drawn = draw_arm(np.zeros((80, 100, 3), np.uint8), robot, np.array([0.8, 0.8]), camera, (255, 0, 0))[:, :, 0]
    ends = camera.project(np.stack([robot.fk(np.array([0.8, 0.8]), link)[0] for link in ("left2", "right2")]))
    for x, y in np.round(ends).astype(int):
        assert drawn[y, x] > 200
    middle = np.round(ends.mean(axis=0)).astype(int)
    between = np.round(0.5 * (ends[0] + middle)).astype(int)
    assert drawn[between[1], between[0]] == 0, "the arms' ends are not joined"


@pytest.fixture(scope="module")
def arm() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module")
def camera(arm: Robot) -> Camera:
    matrix = np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])
    return Camera.from_pose(matrix, np.array([-2.0, 0.0, 0.5]), FORWARD)


def shown(arm: Robot, camera: Camera | None, size: tuple[int, int] = (320, 240), **changes: Any) -> NDArray[np.uint8]:
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    before = image.copy()
    values: dict[str, Any] = {
        "position": arm.home, "std": np.full(6, 0.05), "state": "OK", "reason": "", "latency_ms": None, **changes
    }
    drawn = draw_estimate(image, arm, values.pop("position"), values.pop("std"), camera=camera, **values)
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    return drawn


def test_the_ellipse_covers_the_tips_that_are_likely(arm: Robot) -> None:
    """Of tips drawn from the estimate's own distribution 86 % are within two sigmas."""
    q, std = arm.home + 0.2, np.full(6, 0.05)
    tip = arm.fk(q)[0]
    matrix = np.array([[1500.0, 0, 900], [0, 1500.0, 350], [0, 0, 1]])
    camera = Camera.from_pose(matrix, tip - np.array([2.0, 0.0, 0.0]), FORWARD)
    with_ellipse = shown(arm, camera, (1280, 720), position=q, std=std)
    without = shown(arm, camera, (1280, 720), position=q, std=np.full(6, np.nan))
    outline = (with_ellipse != without).any(axis=2).astype(np.uint8)
    outline[:, :450] = 0  # the bars differ too
    contours, _ = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.vstack(contours))
    tips = camera.project(arm.fk(np.random.default_rng(0).normal(q, std, (2000, 6)))[0])
    inside = np.mean([cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y in tips])
    assert 0.82 < inside < 0.93


@pytest.mark.parametrize("size", [(64, 48), (160, 120), (320, 240), (1280, 720), (33, 400), (9, 9)])
def test_all_sizes_are_drawn_on(arm: Robot, camera: Camera, size: tuple[int, int]) -> None:
    drawn = shown(arm, camera, size, reason="the camera moved " * 20, latency_ms=1e4, measured=arm.home)
    assert (drawn != 60).any()


def test_bars_are_where_the_angles_are(arm: Robot) -> None:
    """The white line moves with the angle, between the ends of the bar at the limits."""
    def bright(position: NDArray[np.float64]) -> int:
        drawn = shown(arm, None, (640, 480), position=position, std=np.full(6, np.nan)).astype(int)
        row = drawn[30, :225].min(axis=1)
        return int(np.flatnonzero(row > 200).mean())

    low, middle, high = bright(arm.lower), bright((arm.lower + arm.upper) / 2), bright(arm.upper)
    assert low < 10
    assert high > 200
    assert abs(middle - (low + high) / 2) <= 2


@pytest.mark.parametrize("state", STATE_COLOURS)
def test_states_have_their_colours(arm: Robot, state: str) -> None:
    bottom = shown(arm, None, state=state)[-16:].reshape(-1, 3).astype(int)
    assert np.abs(bottom - STATE_COLOURS[state]).sum(axis=1).min() < 40


@pytest.mark.parametrize("position", [None, np.full(6, np.nan)])
def test_without_an_estimate_only_the_state_is_shown(arm: Robot, camera: Camera, position: Any) -> None:
    drawn = shown(arm, camera, position=position, std=None, state="NOVEL")
    assert (drawn[:200] == 60).all()
    assert (drawn[-10:] != 60).any()


def transform(parent: str, child: str, position: Any = (0, 0, 0), turn: Any = (0, 0, 0, 1)) -> Any:
    x, y, z = position
    qx, qy, qz, qw = turn
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(x=x, y=y, z=z), rotation=SimpleNamespace(x=qx, y=qy, z=qz, w=qw)
        ),
    )


def test_static_frames_join_both_ways() -> None:
    """world - base and world - mast - camera: a quarter turn about z between world and mast."""
    half = np.sqrt(0.5)
    frames = StaticFrames()
    frames.add([transform("/world", "base", (1, 0, 0)), transform("world", "mast", (0, 2, 0), (0, 0, half, half))])
    assert frames.pose("base", "camera") is None
    frames.add([transform("mast", "/camera", (1, 0, 3))])
    position, quaternion = frames.pose("base", "camera") or (None, None)
    np.testing.assert_allclose(position, [-1, 3, 3], atol=1e-12)
    np.testing.assert_allclose(quaternion, [0, 0, half, half], atol=1e-12)
    position, quaternion = frames.pose("/camera", "base") or (None, None)
    np.testing.assert_allclose(position, [-3, -1, -3], atol=1e-12)
    np.testing.assert_allclose(quaternion, [0, 0, -half, half], atol=1e-12)
    np.testing.assert_allclose((frames.pose("x", "x") or (None,))[0], np.zeros(3))


def test_the_newest_transform_of_a_frame_counts_and_loops_end() -> None:
    frames = StaticFrames()
    frames.add([transform("base", "camera", (1, 0, 0)), transform("base", "camera", (2, 0, 0))])
    np.testing.assert_allclose((frames.pose("base", "camera") or (None,))[0], [2, 0, 0])
    frames.add([transform("table", "camera", (5, 0, 0))])
    assert frames.pose("base", "camera") is None, "it hangs on the table now"
    frames.add([transform("camera", "table")])
    assert frames.pose("base", "camera") is None
    assert frames.pose("table", "camera") is not None


@pytest.mark.parametrize(
    "bad",
    [
        transform("base", "camera", (float("nan"), 0, 0)),
        transform("base", "camera", turn=(0, 0, 0, 0)),
        transform("base", "camera", turn=(float("inf"), 0, 0, 1)),
        transform("base", "base"),
        transform("", "camera"),
    ],
)
def test_transforms_that_are_none_are_refused_and_others_kept(bad: Any) -> None:
    frames = StaticFrames()
    with pytest.raises(RopesError, match=r"static transform from .* to '(camera|base)'"):
        frames.add([bad, transform("base", "good", (0, 0, 1))])
    assert frames.pose("base", "camera") is None
    assert frames.pose("base", "good") is not None


def test_frames_without_end_take_no_memory_without_end() -> None:
    frames = StaticFrames()
    frames.add([transform("base", "camera", (1, 0, 0))])
    frames.add([transform("base", f"frame{number}") for number in range(MOST_FRAMES - 1)])
    with pytest.raises(RopesError, match="one more than"):
        frames.add([transform("base", "another"), transform("base", "camera", (2, 0, 0))])
    assert frames.pose("base", "another") is None
    np.testing.assert_allclose((frames.pose("base", "camera") or (None,))[0], [2, 0, 0])


def info(**changes: Any) -> Any:
    values = {
        "header": SimpleNamespace(frame_id="optical"),
        "k": MATRIX.ravel().tolist(),
        "d": LENSES["plumb_bob"].tolist(),
        "distortion_model": "plumb_bob",
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return SimpleNamespace(**{**values, **changes})


def test_cameras_come_from_their_calibration() -> None:
    pose = np.array([1.0, 2.0, 3.0]), FORWARD
    camera = camera_of(info(), pose)
    np.testing.assert_allclose(camera.matrix, MATRIX)
    np.testing.assert_allclose(camera.position, pose[0])
    assert camera.distortion is not None
    assert camera_of(info(d=[0.0] * 5), pose).distortion is None
    half = camera_of(info(binning_x=2, binning_y=2, roi=SimpleNamespace(x_offset=10, y_offset=20)), pose)
    np.testing.assert_allclose(half.matrix, [[50, 0, 20], [0, 50, 10], [0, 0, 1]])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"k": [0.0] * 9}, "'optical': the camera is not calibrated"),
        ({"k": [float("nan")] * 9}, "not calibrated"),
        ({"distortion_model": "barrel"}, "'barrel' is not known"),
        ({"d": [0.1, 0.2]}, "4 or 5 coefficients, not 2"),
        ({"d": [float("nan")] * 5}, "not finite"),
    ],
)
def test_cameras_that_cannot_be_drawn_with_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RopesError, match=complaint):
        camera_of(info(**changes), (np.zeros(3), FORWARD))


def test_a_camera_whose_pictures_were_scaled_is_scaled_too() -> None:
    """The outer edges of the picture stay its edges."""
    pose = np.array([1.0, 2.0, 3.0]), FORWARD
    corners = np.array([[-0.5, -0.5, 1.0], [199.5, 99.5, 1.0]])
    rays = np.linalg.solve(MATRIX, corners.T)
    part = SimpleNamespace(x_offset=0, y_offset=0, width=200, height=100)
    for changes in ({"width": 200, "height": 100}, {"width": 999, "height": 999, "roi": part}):
        assert (camera_of(info(**changes), pose, size=(200, 100)).matrix == MATRIX).all()
        half = camera_of(info(**changes), pose, size=(100, 25)).matrix
        np.testing.assert_allclose((half @ rays)[:2].T, [[-0.5, -0.5], [99.5, 24.5]], atol=1e-9)
