"""Robot presets: kinematics against finite differences and closed form, the box, and refusals in plain words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from ropes_ros import paths
from ropes_ros.errors import RobotError, RopesError
from ropes_ros.robot import Robot, load_robot

TWO_LINK = """<robot name="two">
  <link name="world"/>
  <link name="base"/>
  <link name="upper"/>
  <link name="lower"/>
  <link name="hand"/>
  <joint name="mount" type="fixed">
    <parent link="world"/><child link="base"/><origin xyz="5 6 7" rpy="0 0 1.5707963267948966"/>
  </joint>
  <joint name="shoulder" type="revolute">
    <parent link="base"/><child link="upper"/><axis xyz="0 0 1"/>
    <limit lower="-1.5" upper="1.5" velocity="2" effort="1"/>
  </joint>
  <joint name="elbow" type="revolute">
    <parent link="upper"/><child link="lower"/><origin xyz="0.4 0 0"/><axis xyz="0 0 1"/>
    <limit lower="-2" upper="2" velocity="3" effort="1"/>
  </joint>
  <joint name="wheel" type="continuous">
    <parent link="lower"/><child link="hand"/><origin xyz="0.3 0 0"/><axis xyz="0 0 1"/>
    <limit velocity="3" effort="1"/>
  </joint>
</robot>
"""
PRESET = {
    "name": "two",
    "urdf": "two.urdf",
    "base_link": "base",
    "tip_link": "hand",
    "joints": {  # not in the URDF's order
        "elbow": {"home": 0.5, "half_range": 1.0, "max_acceleration": 10.0},
        "shoulder": {"home": 0.0, "half_range": 1.2, "max_acceleration": 5.0, "max_velocity": 1.5},
    },
}
WHEEL = {"home": 2.0, "half_range": math.pi, "max_acceleration": 10.0}


@pytest.fixture(scope="module")
def arm6() -> Robot:
    return load_robot("arm6")


def make(tmp_path: Path, change=lambda preset: None, urdf: str = TWO_LINK) -> Robot:
    """Load the two-link preset from files, after a change to a copy of it."""
    preset = yaml.safe_load(yaml.safe_dump(PRESET))
    change(preset)
    (tmp_path / "two.urdf").write_text(urdf)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(preset, sort_keys=False))
    return load_robot(tmp_path / "two.yaml")


def test_joints_come_in_the_presets_order_with_limits_from_the_urdf(tmp_path):
    robot = make(tmp_path)
    assert robot.joint_names == ("elbow", "shoulder")
    assert robot.lower.tolist() == [-2.0, -1.5]
    assert robot.max_velocity.tolist() == [3.0, 1.5]  # the preset's own limit wins
    assert robot.max_acceleration.tolist() == [10.0, 5.0]


def test_fk_is_the_closed_form_in_the_base_frame(tmp_path):
    robot = make(tmp_path)
    q = np.random.default_rng(0).uniform(-1.4, 1.4, (3, 5, 2))
    position, quaternion = robot.fk(q)
    elbow, shoulder = q[..., 0], q[..., 1]
    expected = np.stack(
        [
            0.4 * np.cos(shoulder) + 0.3 * np.cos(shoulder + elbow),
            0.4 * np.sin(shoulder) + 0.3 * np.sin(shoulder + elbow),
            np.zeros_like(elbow),
        ],
        axis=-1,
    )
    np.testing.assert_allclose(position, expected, atol=1e-9)
    half = (shoulder + elbow) / 2
    np.testing.assert_allclose(quaternion[..., 2], np.sin(half) * np.sign(np.cos(half)), atol=1e-9)
    np.testing.assert_allclose(quaternion[..., 3], np.abs(np.cos(half)), atol=1e-9)


@pytest.mark.parametrize("link", ["hand", "lower"])
def test_jacobian_of_a_turned_base_is_the_derivative_of_fk(tmp_path, link):
    check_jacobian(make(tmp_path), link)


@pytest.mark.parametrize("link", [None, "link3"])
def test_arm6_jacobian_is_the_derivative_of_fk(arm6, link):
    check_jacobian(arm6, link)


def check_jacobian(robot: Robot, link: str | None) -> None:
    rng, step = np.random.default_rng(1), 1e-6
    for u in rng.uniform(-1, 1, (5, len(robot.joints))):
        q = robot.denormalise(u)
        jacobian = robot.jacobian(q, link)
        for j, offset in enumerate(step * np.eye(len(q))):
            (p0, r0), (p1, r1) = robot.fk(q - offset, link), robot.fk(q + offset, link)
            np.testing.assert_allclose(jacobian[:3, j], (p1 - p0) / (2 * step), atol=1e-6)
            np.testing.assert_allclose(jacobian[3:, j], rotation_between(r0, r1) / (2 * step), atol=1e-6)


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Small rotation vector that takes orientation a to b (both xyzw), in the fixed frame."""
    (av, aw), (bv, bw) = (a[:3], a[3]), (b[:3], b[3])
    vector = aw * bv - bw * av - np.cross(bv, av)
    return 2 * vector * np.sign(aw * bw + av @ bv)


def test_normalise_maps_the_box_to_one_and_back(arm6):
    u = np.random.default_rng(2).uniform(-1, 1, (4, 7, 6))
    np.testing.assert_allclose(arm6.normalise(arm6.denormalise(u)), u, atol=1e-12)
    np.testing.assert_allclose(arm6.normalise(arm6.home + arm6.half_range), np.ones(6))
    np.testing.assert_array_equal(arm6.denormalise(np.zeros(6)), arm6.home)


def test_arm6_is_a_small_arm_within_its_limits(arm6):
    assert arm6.joint_names == tuple(f"joint{i}" for i in range(1, 7))
    assert {arm6.base_link, arm6.tip_link} <= set(arm6.links)
    assert np.all(arm6.home - arm6.half_range >= arm6.lower)
    assert np.all(arm6.home + arm6.half_range <= arm6.upper)
    u = np.random.default_rng(3).uniform(-1, 1, (2000, 6))
    shoulder, _ = arm6.fk(arm6.home, "link2")
    reach = np.linalg.norm(arm6.fk(arm6.denormalise(u))[0] - shoulder, axis=-1).max()
    assert 0.7 < reach < 0.9


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(RobotError, match=r"unknown robot 'arm9'.*arm6"):
        load_robot("arm9")


def test_arrays_that_do_not_fit_and_unknown_links_are_refused(arm6):
    with pytest.raises(RobotError, match=r"6 joints.*\(2, 5\)"):
        arm6.normalise(np.zeros((2, 5)))
    with pytest.raises(RobotError, match=r"no link 'hand'.*tool0"):
        arm6.fk(arm6.home, "hand")
    with pytest.raises(RobotError, match="one configuration"):
        arm6.jacobian(np.zeros((2, 6)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["joints"].update(hip=p["joints"]["elbow"]), "joint 'hip' is not in .*shoulder, elbow"),
        (lambda p: p["joints"]["elbow"].update(half_range=1.8), "joint 'elbow'.*outside.*limits"),
        (lambda p: p["joints"]["elbow"].update(half_range=-1.0), "half_range must be a finite number above 0"),
        (lambda p: p["joints"]["elbow"].update(home=float("nan")), "home must be a finite number"),
        (lambda p: p["joints"]["elbow"].update(home=True), "home must be a finite number"),
        (lambda p: p["joints"]["elbow"].pop("max_acceleration"), "key 'max_acceleration' is missing"),
        (lambda p: p["joints"]["elbow"].update(range=1), "unknown key 'range'"),
        (lambda p: p.update(colour="red"), "unknown key 'colour'"),
        (lambda p: p.pop("tip_link"), "key 'tip_link' is missing"),
        (lambda p: p.update(joints=[]), "joints must map"),
        (lambda p: p.update(joints={"elbow": 1.0}), "joint 'elbow'.*expected home"),
        (lambda p: p.update(urdf="three.urdf"), "URDF .*three.urdf does not exist"),
        (lambda p: p.update(tip_link="foot"), "no link 'foot'"),
        (lambda p: p.update(base_link="lower"), "base_link 'lower' is moved by a joint"),
        (lambda p: p["joints"].update(wheel={**WHEEL, "half_range": 3.2}), "'wheel': half_range is 3.2.*at most pi"),
    ],
)
def test_a_malformed_preset_is_refused_with_what_and_where(tmp_path, change, message):
    with pytest.raises(RobotError, match=message) as caught:
        make(tmp_path, change)
    assert str(tmp_path) in str(caught.value) or "robot 'two'" in str(caught.value)
    assert "\n" not in str(caught.value)


def with_wheel(preset: dict) -> None:
    """The preset with the wheel as its second joint."""
    preset["joints"] = {"elbow": preset["joints"]["elbow"], "wheel": WHEEL, "shoulder": preset["joints"]["shoulder"]}


def test_a_continuous_joint_has_a_whole_turn_about_home(tmp_path):
    robot = make(tmp_path, with_wheel)
    assert robot.continuous.tolist() == [False, True, False]
    assert [joint.continuous for joint in robot.joints] == [False, True, False]
    np.testing.assert_allclose(robot.lower, [-2.0, 2.0 - math.pi, -1.5])
    np.testing.assert_allclose(robot.upper, [2.0, 2.0 + math.pi, 1.5])
    assert robot.max_velocity.tolist() == [3.0, 3.0, 1.5]


@pytest.mark.parametrize("link", ["hand", "lower"])
def test_a_continuous_joint_moves_as_a_revolute_one_does(tmp_path, link):
    """Its twin has limits; the joints before and after it in preset and URDF keep their places."""
    robot = make(tmp_path, with_wheel)
    (tmp_path / "twin").mkdir()
    limits = '<limit lower="-9" upper="9" velocity="3" effort="1"/>'
    revolute = TWO_LINK.replace("continuous", "revolute").replace('<limit velocity="3" effort="1"/>', limits)
    twin = make(tmp_path / "twin", with_wheel, revolute)
    assert not twin.continuous.any()
    q = np.random.default_rng(4).uniform(-1.4, 1.4, (20, 3)) * [1.0, 4.0, 1.0]
    for mine, right in zip(robot.fk(q, link), twin.fk(q, link), strict=True):
        np.testing.assert_allclose(mine, right, atol=1e-9)
    np.testing.assert_allclose(robot.jacobian(q[0], link), twin.jacobian(q[0], link), atol=1e-9)
    check_jacobian(robot, link)
    for mine, right in zip(robot.chain(), twin.chain(), strict=True):
        np.testing.assert_allclose(mine, right, atol=1e-9)
    turned = q + np.array([0.0, 2.0 * math.pi, 0.0])
    np.testing.assert_allclose(robot.fk(turned, link)[0], robot.fk(q, link)[0], atol=1e-9)


@pytest.mark.parametrize("kind", ["floating", "planar"])
def test_a_joint_of_several_axes_is_refused(tmp_path, kind):
    with pytest.raises(RobotError, match=r"joint 'wheel' has several axes.*make it revolute, continuous or prismatic"):
        make(tmp_path, with_wheel, TWO_LINK.replace("continuous", kind))


def test_files_that_are_not_what_they_should_be(tmp_path):
    with pytest.raises(RobotError, match="not a readable URDF"):
        make(tmp_path, urdf="<robot")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RobotError, match="must be a mapping"):
        load_robot(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    with pytest.raises(RobotError, match="is not YAML"):
        load_robot(tmp_path / "broken.yaml")
    with pytest.raises(RobotError, match="cannot be read"):
        load_robot(tmp_path / "absent.yaml")


def test_data_files_are_found_where_ros_installs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site" / "ropes_ros" / "paths.py"))
    monkeypatch.setattr(paths.sys, "prefix", str(tmp_path / "python"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    with pytest.raises(RopesError, match="config/robots is in none of"):
        paths.share_dir()
    (tmp_path / "b" / "share" / "ropes_ros" / "config" / "robots").mkdir(parents=True)
    assert paths.share_dir() == tmp_path / "b" / "share" / "ropes_ros"
