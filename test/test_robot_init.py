"""A drafted preset: it loads, its box is free, its camera sees it; what was left out or guessed is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ropes_ros.cli import app
from ropes_ros.collision import examine
from ropes_ros.errors import RobotError
from ropes_ros.paths import share_dir
from ropes_ros.placement import FOVY, place_camera
from ropes_ros.robot import Robot, load_robot
from ropes_ros.robot_init import Sources, init_robot
from ropes_ros.simulation import optical_rotation

BODY = '<collision><origin xyz="0 0 0.1"/><geometry><box size="0.06 0.06 0.2"/></geometry></collision>'
URDF = f"""<robot name="my arm">
  <link name="world"/><link name="base">{BODY}</link><link name="one">{BODY}</link><link name="two">{BODY}</link>
  <link name="three">{BODY}</link><link name="arm_tcp"/><link name="left"/><link name="right"/>
  <joint name="mount" type="fixed"><parent link="world"/><child link="base"/></joint>
  <joint name="turn" type="continuous"><parent link="base"/><child link="one"/><origin xyz="0 0 0.25"/>
    <axis xyz="0 0 1"/><limit velocity="1.5" effort="9"/></joint>
  <joint name="bend" type="revolute"><parent link="one"/><child link="two"/><origin xyz="0 0 0.25"/>
    <axis xyz="0 1 0"/><limit lower="-2" upper="2.6" velocity="0" effort="9"/></joint>
  <joint name="lift" type="prismatic"><parent link="two"/><child link="three"/><origin xyz="0 0 0.25"/>
    <axis xyz="0 0 1"/><limit lower="0" upper="0.2" velocity="0.4" effort="9"/></joint>
  <joint name="end" type="fixed"><parent link="three"/><child link="arm_tcp"/><origin xyz="0 0 0.2"/></joint>
  <joint name="finger" type="prismatic"><parent link="arm_tcp"/><child link="left"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="0.05" velocity="0.1" effort="9"/></joint>
  <joint name="thumb" type="prismatic"><parent link="arm_tcp"/><child link="right"/><axis xyz="0 -1 0"/>
    <limit lower="0" upper="0.05" velocity="0.1" effort="9"/><mimic joint="finger"/></joint>
</robot>
"""
SRDF = """<robot name="my arm">
  <group_state name="tucked" group="arm"><joint name="bend" value="2.5"/></group_state>
  <group_state name="ready" group="arm"><joint name="turn" value="0.5"/><joint name="bend" value="0.7"/></group_state>
  <end_effector name="hand" parent_link="three" group="arm"/>
  <disable_collisions link1="base" link2="two" reason="Default"/>
  <disable_collisions link1="base" link2="three" reason="Never"/>
</robot>
"""


def sources(folder: Path, urdf: str = URDF, srdf: str | None = None) -> Sources:
    (folder / "arm.urdf").write_text(urdf, encoding="utf-8")
    if srdf is not None:
        (folder / "arm.srdf").write_text(srdf, encoding="utf-8")
    return Sources(folder / "arm.urdf", srdf=None if srdf is None else folder / "arm.srdf")


def test_joints_of_all_kinds_are_drafted(tmp_path: Path) -> None:
    path, robot, notes = init_robot(sources(tmp_path), tmp_path / "out")
    assert robot.name == "my_arm" and (robot.base_link, robot.tip_link) == ("base", "arm_tcp")
    assert robot.joint_names == ("turn", "bend", "lift")
    turn, bend, lift = robot.joints
    assert turn.continuous and turn.max_velocity == 1.5 and turn.home == 0.0
    assert bend.home == pytest.approx(0.3, abs=0.06) and bend.max_velocity == 1.0
    assert lift.prismatic and lift.home == pytest.approx(0.1) and lift.half_range <= 0.08
    assert examine(robot).findings == ()
    text = path.read_text(encoding="utf-8")
    assert "0 to 0.2 m, 0.4 m/s" in text and "-2 to 2.6 rad" in text and "# continuous" in text
    assert any("finger, thumb (mimic)" in note for note in notes) and "thumb (mimic)" in text
    assert any("joint 'bend' has no speed limit" in note for note in notes)
    assert "guess" in text


def test_the_srdf_names_home_tip_and_what_may_touch(tmp_path: Path) -> None:
    _, robot, _ = init_robot(sources(tmp_path, srdf=SRDF), tmp_path / "out")
    assert robot.tip_link == "three"
    np.testing.assert_allclose(robot.home[:2], [0.5, 0.7])
    assert robot.preset["collision"] == {"ignore": [["base", "two"]]}  # "Never" is no reason to look away


def test_what_is_asked_for_is_taken(tmp_path: Path) -> None:
    given = sources(tmp_path)
    _, robot, _ = init_robot(given, tmp_path / "out", base="world", tip="left", joints=["bend", "turn"])
    assert (robot.base_link, robot.tip_link, robot.joint_names) == ("world", "left", ("bend", "turn"))
    with pytest.raises(RobotError, match=r"robot.yaml is there already: remove it or name another folder"):
        init_robot(given, tmp_path / "out")
    with pytest.raises(RobotError, match="has no link 'nose'"):
        init_robot(given, tmp_path / "b", tip="nose")
    with pytest.raises(RobotError, match="has no joint 'knee' that moves"):
        init_robot(given, tmp_path / "c", joints=["knee"])
    with pytest.raises(RobotError, match="joint 'thumb' follows another one"):
        init_robot(given, tmp_path / "d", joints=["thumb"])


def test_a_revolute_joint_without_limits_is_refused(tmp_path: Path) -> None:
    urdf = URDF.replace('lower="-2" upper="2.6"', "")
    with pytest.raises(RobotError, match="joint 'bend' has no limits"):
        init_robot(sources(tmp_path, urdf), tmp_path / "out")


def test_half_ranges_shrink_until_the_floor_is_free(tmp_path: Path) -> None:
    high = '<origin xyz="0 0 {}"/>\n    <axis xyz="0 1 0"/>'
    low = URDF.replace(high.format(0.25), high.format(0.02))
    assert low != URDF
    srdf = SRDF.replace('value="0.7"', 'value="1.75"').replace('reason="Never"', 'reason="Default"')
    _, robot, _ = init_robot(sources(tmp_path, low, srdf), tmp_path / "out")
    assert robot.home[1] == pytest.approx(1.75) and robot.half_range[1] < 0.6
    assert examine(robot).findings == ()


def test_links_that_overlap_by_design_are_ignored_and_named(tmp_path: Path) -> None:
    # A link without a shape between two that overlap: the joint's two axes.
    urdf = URDF.replace(f'<link name="two">{BODY}</link>', '<link name="two"/>').replace(
        '<child link="three"/><origin xyz="0 0 0.25"/>', '<child link="three"/><origin xyz="0 0 -0.25"/>'
    )
    _, robot, notes = init_robot(sources(tmp_path, urdf), tmp_path / "out")
    assert ["one", "three"] in robot.preset["collision"]["ignore"]
    assert any("'one' and 'three' always touch" in note for note in notes)


def test_a_xacro_file_is_expanded_beside_the_preset(tmp_path: Path) -> None:
    pytest.importorskip("xacro")
    (tmp_path / "link.obj").write_text("v 0 0 0\nv 0.1 0 0\nv 0 0.1 0\nv 0 0 0.1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n")
    mesh = '<collision><geometry><mesh filename="link.obj"/></geometry></collision>'
    text = URDF.replace('<robot name="my arm">', '<robot name="$(arg who)" xmlns:xacro="http://www.ros.org/wiki/xacro">'
                        '<xacro:arg name="who" default="nobody"/>').replace(BODY, mesh, 2)
    (tmp_path / "arm.urdf.xacro").write_text(text)
    words = ["robot", "init", str(tmp_path / "arm.urdf.xacro"), "--out", str(tmp_path / "out"), "--xacro-arg", "who=me"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    robot = load_robot(tmp_path / "out" / "robot.yaml")
    assert robot.name == "me" and robot.urdf_path == tmp_path / "out" / "arm.urdf"
    assert examine(robot).clearance_m is not None  # the meshes, relative to the xacro file, were found


MJCF = """<mujoco model="slider">
  <default><default class="rail"><joint range="0 0.2"/></default></default>
  <worldbody>
    <light pos="0 0 3"/><geom type="plane" size="1 1 0.1"/>
    <body name="base" pos="0 0 0.1"><geom type="cylinder" size="0.05 0.1"/>
      <body name="upper" pos="0 0 0.12"><joint name="turn" axis="0 0 1" range="-120 120"/>
        <geom type="capsule" fromto="0 0 0.05 0 0 0.25" size="0.03"/>
        <body name="fore" pos="0 0 0.35"><joint name="bend" axis="0 1 0" range="-90 90"/>
          <geom type="capsule" fromto="0 0 0.02 0 0 0.25" size="0.03"/>
          <body name="tool" pos="0 0 0.3"><joint name="slide" class="rail" type="slide" axis="0 0 1"/>
            <geom type="box" size="0.02 0.02 0.02"/>
            <body name="finger" pos="0 0 0.05"><joint name="grip" type="slide" axis="1 0 0" range="0 0.02"/>
              <geom type="box" size="0.01 0.01 0.01"/></body></body></body></body></body>
  </worldbody>
  <actuator><position joint="turn"/></actuator>
</mujoco>
"""


def test_a_robot_of_mujoco_is_drafted_checked_and_simulated(tmp_path: Path) -> None:
    """With a floor in its world, an actuator and a gripper, as such files have; slides count in m, degrees or not."""
    (tmp_path / "arm.xml").write_text(MJCF, encoding="utf-8")
    path, robot, notes = init_robot(Sources(tmp_path / "arm.xml"), tmp_path / "out", tip="tool")
    assert robot.joint_names == ("turn", "bend", "slide") and (robot.base_link, robot.tip_link) == ("base", "tool")
    assert any("grip" in note for note in notes)
    turn, _, slide = robot.joints
    assert (turn.lower, turn.upper) == pytest.approx((-np.radians(120.0), np.radians(120.0)))
    assert slide.prismatic and (slide.lower, slide.upper) == pytest.approx((0.0, 0.2))
    assert slide.half_range == pytest.approx(0.08, abs=1e-3)
    found = examine(robot)
    assert not found.findings and found.swept is not None
    assert found.clearance_m is not None and found.clearance_m > 0.1
    table = '<geom name="table" type="box" size="1 1 0.1" pos="0.5 0 0.6"/><body name="base"'
    (tmp_path / "table.xml").write_text(MJCF.replace('<body name="base"', table), encoding="utf-8")
    path.write_text(path.read_text().replace("arm.xml", "table.xml"), encoding="utf-8")
    assert {"universe", "fore"} in [set(finding.links) for finding in examine(load_robot(path)).findings]
    pytest.importorskip("mujoco")
    from ropes_ros.sim.arm import SimArm

    arm = SimArm(robot, render=False)
    target = robot.denormalise([0.5, -0.5, 0.5])
    arm.step_to(1.0, lambda _: target)
    np.testing.assert_allclose(arm.positions(), target, atol=1e-3)


def test_what_no_robot_can_be_is_refused_or_noted(tmp_path: Path) -> None:
    (tmp_path / "arm.xml").write_text('<mujoco><include file="other.xml"/></mujoco>', encoding="utf-8")
    with pytest.raises(RobotError, match="includes other MJCF files"):
        init_robot(Sources(tmp_path / "arm.xml"), tmp_path / "out")
    with pytest.raises(RobotError, match="axis of joint 'turn' is zero"):
        init_robot(sources(tmp_path, URDF.replace('xyz="0 0 1"/><limit velocity', 'xyz="0 0 0"/><limit velocity')),
                   tmp_path / "out")
    with pytest.raises(RobotError, match="'lift' has limits 1e-05 apart"):
        init_robot(sources(tmp_path, URDF.replace('upper="0.2"', 'upper="0.00001"')), tmp_path / "out")
    with pytest.raises(RobotError, match="name each joint once"):
        init_robot(sources(tmp_path), tmp_path / "out", joints=["turn", "bend", "turn"])
    large = URDF.replace('xyz="0 0 0.25"', 'xyz="0 0 250"').replace('size="0.06 0.06 0.2"', 'size="60 60 200"')
    _, _, notes = init_robot(sources(tmp_path, large), tmp_path / "large")
    assert any("millimetres?" in note for note in notes)


def test_links_without_mass_can_be_simulated(tmp_path: Path) -> None:
    """No link of this description has one, as of many that are drawn for looks alone."""
    pytest.importorskip("mujoco")
    from ropes_ros.sim.arm import SimArm

    bare = URDF.replace(BODY, "", 3)
    _, robot, _ = init_robot(sources(tmp_path, bare), tmp_path / "out")
    assert SimArm(robot, render=False).positions() == pytest.approx(robot.home)


def test_the_command_line_says_what_is_wrong_with_its_options(tmp_path: Path) -> None:
    sources(tmp_path)
    done = CliRunner().invoke(app, ["robot", "init", str(tmp_path / "arm.urdf"), "--package-dir", "arms"])
    assert isinstance(done.exception, RobotError) and "NAME=VALUE" in str(done.exception)
    done = CliRunner().invoke(app, ["robot", "init", str(tmp_path / "leg.urdf")])
    assert isinstance(done.exception, RobotError) and "does not exist" in str(done.exception)


# The camera


def seen(robot: Robot, camera: dict[str, list[float]]) -> np.ndarray:
    """Pixel coordinates in half pictures, (N, 2), of links' origins over the box's corners and random poses."""
    position, look_at = np.array(camera["position"]), np.array(camera["look_at"])
    rng = np.random.default_rng(7)
    units = np.vstack([rng.uniform(-1, 1, (300, len(robot.joints))), rng.choice((-1.0, 1.0), (64, len(robot.joints)))])
    points = np.concatenate([robot.link_positions(q) for q in robot.denormalise(units)])
    local = (points - position) @ optical_rotation(position, look_at)
    assert (local[:, 2] > 0.1).all()
    return local[:, :2] / local[:, 2:] / np.tan(FOVY / 2) / [4 / 3, 1]


@pytest.mark.parametrize("name", ["arm6", "drafted"])
def test_all_that_is_swept_is_in_view_and_fills_it(name: str, tmp_path: Path) -> None:
    robot = load_robot("arm6") if name == "arm6" else init_robot(sources(tmp_path), tmp_path / "out").robot
    at = np.abs(seen(robot, place_camera(robot)))
    assert at.max() < 1.0
    assert at.max() > 0.6


def test_bundled_presets_camera_is_what_init_would_place() -> None:
    """Presets of other robots keep what `place_camera` gave for their box."""
    tried = 0
    for name in ("ur5e", "panda", "so101"):
        assert (share_dir() / "config" / "robots" / name / "robot.yaml").is_file()
        try:
            robot = load_robot(name)
        except RobotError as error:
            assert "is not installed" in str(error) or "pip install" in str(error) or "download" in str(error)
            continue
        tried += 1
        position = robot.preset["sim"]["camera"]["position"]
        np.testing.assert_allclose(position, place_camera(robot)["position"], atol=0.01)
        assert examine(robot).findings == ()
    if not tried:
        pytest.skip("none of the extras robots, panda and so101 is installed")
