"""What a robot hits: found where it is, told where and when, and refused; nothing where there is nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from ropes_ros.cli import app
from ropes_ros.collision import (
    STEP_M,
    Shapes,
    box_samples,
    check_schedule,
    examine,
    motion_samples,
    refuse_collisions,
)
from ropes_ros.errors import RobotError, ScheduleError
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot, load_robot

PLANAR = """<robot name="planar">
  <link name="base"><collision><origin xyz="0 0 0.25"/><geometry><box size="0.1 0.1 0.5"/></geometry></collision></link>
  <link name="upper">
    <collision><origin xyz="0.2 0 0"/><geometry><box size="0.3 0.04 0.04"/></geometry></collision></link>
  <link name="lower">
    <collision><origin xyz="0.2 0 0"/><geometry><box size="0.3 0.04 0.04"/></geometry></collision></link>
  <link name="tool"/>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><origin xyz="0 0 0.5"/>
    <axis xyz="0 1 0"/><limit lower="-3" upper="3" velocity="2" effort="1"/></joint>
  <joint name="elbow" type="revolute"><parent link="upper"/><child link="lower"/><origin xyz="0.4 0 0"/>
    <axis xyz="0 1 0"/><limit lower="-3" upper="3" velocity="2" effort="1"/></joint>
  <joint name="end" type="fixed"><parent link="lower"/><child link="tool"/><origin xyz="0.4 0 0"/></joint>
</robot>
"""


def planar(folder: Path, shoulder: tuple[float, float], elbow: tuple[float, float], **more: object) -> Robot:
    """Two links that turn about y, at 0.5 m above the floor; positive angles go down. Joints as (home, half range)."""
    preset = {
        "name": "planar",
        "urdf": "planar.urdf",
        "base_link": "base",
        "tip_link": "tool",
        "joints": {
            name: {"home": home, "half_range": half, "max_acceleration": 5.0}
            for name, (home, half) in (("shoulder", shoulder), ("elbow", elbow))
        },
        **more,
    }
    folder.mkdir(exist_ok=True)
    (folder / "planar.urdf").write_text(PLANAR, encoding="utf-8")
    (folder / "robot.yaml").write_text(yaml.safe_dump(preset, sort_keys=False), encoding="utf-8")
    return load_robot(folder / "robot.yaml")


def test_a_free_box_is_free_and_measured(tmp_path: Path) -> None:
    found = examine(planar(tmp_path, (-0.5, 0.3), (0.0, 0.2)))
    assert found.findings == () and found.notes == ()
    # Lowest is the shoulder's end of the upper link, tilted least: 0.05 m along it, half its thickness below.
    lowest = 0.5 + 0.05 * np.sin(0.2) - 0.02 * np.cos(0.2)
    assert found.clearance_m == pytest.approx(lowest, abs=1e-6) and found.lowest == "upper"
    assert found.swept is not None and found.closest is not None and found.closest.links == ("base", "lower")
    reach = 0.4 * np.cos(0.2) + 0.35 * np.cos(0.0)
    assert found.swept.high[0] == pytest.approx(reach, abs=0.03)
    assert found.swept.high[1] == pytest.approx(0.02, abs=0.002)
    assert 0.3 * 0.04 * 0.04 < found.swept.volume < np.prod(found.swept.high - found.swept.low) * 1.5


def test_the_floor_is_hit_where_geometry_says(tmp_path: Path) -> None:
    robot = planar(tmp_path, (0.5, 0.4), (0.2, 0.4))
    found = examine(robot)
    (finding,) = found.findings
    assert (finding.kind, finding.links) == ("floor", ("lower",))
    # Both joints at their most: the lower link's end, half its thickness further.
    down = 0.4 * np.sin(0.9) + 0.35 * np.sin(1.5) + 0.02 * np.cos(1.5)
    assert finding.depth_m == pytest.approx(down - 0.5, abs=1e-4)
    assert found.clearance_m == pytest.approx(-finding.depth_m)
    assert 0.0 < finding.share < 0.5
    assert "link 'lower' reaches" in str(finding) and "shoulder" in str(finding) and "°" in str(finding)
    heights = Shapes(robot).heights(np.array([finding.q]))
    assert heights.min() < 0.0


def test_the_floors_height_is_the_presets(tmp_path: Path) -> None:
    free = planar(tmp_path / "free", (0.5, 0.4), (0.2, 0.4), collision={"floor": -1.0})
    assert examine(free).findings == ()
    high = planar(tmp_path / "high", (-0.5, 0.3), (0.0, 0.2), collision={"floor": 0.6})
    assert {finding.links for finding in examine(high).findings} == {("upper",), ("lower",)}


def test_links_that_collide_are_named_with_a_configuration_in_which_they_do(tmp_path: Path) -> None:
    robot = planar(tmp_path / "a", (-0.2, 0.3), (2.6, 0.3), collision={"floor": -2.0})
    (finding,) = examine(robot).findings
    assert (finding.kind, set(finding.links)) == ("self-collision", {"base", "lower"})
    shoulder, elbow = finding.q
    along = np.linspace(0.05, 0.35, 200)
    x = 0.4 * np.cos(shoulder) + along * np.cos(shoulder + elbow)
    z = 0.5 - 0.4 * np.sin(shoulder) - along * np.sin(shoulder + elbow)
    assert ((np.abs(x) < 0.075) & (z < 0.525)).any()  # within the base's box, widened by the link's thickness
    ignoring = planar(
        tmp_path / "b", (-0.2, 0.3), (2.6, 0.3), collision={"floor": -2.0, "ignore": [["lower", "base"]]}
    )
    assert examine(ignoring).findings == ()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"ceiling": 1}, "must have the keys ignore and floor"),
        ({"floor": "low"}, "floor must be a height in m"),
        ({"ignore": ["base"]}, "ignore must be a list of pairs"),
        ({"ignore": [["base", "nose"]]}, "there is no link 'nose'"),
    ],
)
def test_a_malformed_section_says_why(tmp_path: Path, section: dict, message: str) -> None:
    with pytest.raises(RobotError, match=message):
        examine(planar(tmp_path, (0.0, 0.1), (0.0, 0.1), collision=section))


def test_hulls_that_touch_are_not_enough(tmp_path: Path) -> None:
    """A ring of three walls and a finger within it: only its hull is touched."""
    pytest.importorskip("trimesh")
    import trimesh

    walls = [((0.3, 0, 0.0), (0.02, 0.4, 0.02)), ((-0.3, 0, 0), (0.02, 0.4, 0.02)), ((0, 0.3, 0), (0.6, 0.02, 0.02))]
    parts = [trimesh.creation.box(size, transform=trimesh.transformations.translation_matrix(at)) for at, size in walls]
    trimesh.util.concatenate(parts).export(tmp_path / "ring.stl")
    urdf = """<robot name="r"><link name="mast"/>
    <link name="base"><collision><geometry><mesh filename="ring.stl"/></geometry></collision></link>
    <link name="finger"><collision><geometry><sphere radius="0.05"/></geometry></collision></link>
    <joint name="rise" type="prismatic"><parent link="base"/><child link="mast"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/></joint>
    <joint name="slide" type="prismatic"><parent link="mast"/><child link="finger"/><axis xyz="1 0 0"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>"""
    (tmp_path / "r.urdf").write_text(urdf)

    def shapes(half_range: float) -> tuple[Robot, Shapes]:
        joints = {name: {"home": 0.0, "half_range": half_range, "max_acceleration": 1.0} for name in ("rise", "slide")}
        preset = {"name": "r", "urdf": "r.urdf", "base_link": "base", "tip_link": "finger", "joints": joints}
        robot = Robot({**preset, "collision": {"floor": -9.0}}, tmp_path / "robot.yaml")
        return robot, Shapes(robot)

    robot, within = shapes(0.2)
    assert within.findings(box_samples(robot)[0]) == ()
    robot, wide = shapes(0.3)
    (finding,) = wide.findings(box_samples(robot)[0])
    assert abs(finding.q[1]) > 0.2 and "mm" in finding.configuration


def test_a_schedule_that_hits_something_is_refused_and_tells_when(tmp_path: Path) -> None:
    hits = planar(tmp_path / "hits", (0.5, 0.4), (0.2, 0.4))
    schedule = make_schedule(hits, duration_s=120.0, seed=1)
    (finding,) = check_schedule(hits, schedule)
    assert finding.time_s is not None and 0.0 < finding.time_s < 120.0
    from ropes_ros.motion import Trajectory

    q = Trajectory(hits, schedule).positions_at(np.array([round(finding.time_s * 1e9)]))
    np.testing.assert_allclose(q[0], finding.q, atol=1e-6)
    with pytest.raises(ScheduleError, match=r"the schedule hits something: link 'lower' reaches .* s from the start"):
        refuse_collisions(hits, schedule)
    free = planar(tmp_path / "free", (-0.5, 0.3), (0.0, 0.2))
    assert check_schedule(free, make_schedule(free, duration_s=120.0, seed=1)) == ()
    with pytest.raises(ScheduleError, match="make the schedule anew"):
        check_schedule(free, schedule)


def test_no_point_moves_far_between_two_configurations_looked_at() -> None:
    robot = load_robot("arm6")
    schedule = make_schedule(robot, duration_s=60.0, seed=3)
    q, times = motion_samples(robot, schedule)
    assert times[0] == 0.0 and times[-1] == pytest.approx(60.0) and (np.diff(times) > 0).all()
    links = np.stack([robot.link_positions(row) for row in q])
    assert np.linalg.norm(np.diff(links, axis=0), axis=-1).max() < 1.5 * STEP_M


def test_the_built_in_arm_is_as_free_as_its_preset_says() -> None:
    found = examine(load_robot("arm6"))
    assert found.findings == ()
    assert found.clearance_m is not None and found.clearance_m > 0.02


# The command line


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    error = "" if done.exception is None or isinstance(done.exception, SystemExit) else str(done.exception)
    return done.exit_code, done.output + error


def test_check_exits_with_1_where_something_is_hit(tmp_path: Path) -> None:
    planar(tmp_path / "hits", (0.5, 0.4), (0.2, 0.4))
    planar(tmp_path / "free", (-0.5, 0.3), (0.0, 0.2))
    status, output = run("robot", "check", tmp_path / "hits" / "robot.yaml", "--json")
    content = json.loads(output)
    assert status == 1 and content["free"] is False and content["findings"][0]["links"] == ["lower"]
    status, output = run("robot", "check", tmp_path / "free" / "robot.yaml", "--html", tmp_path / "page.html")
    assert status == 0 and "nothing is hit" in output
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "Nothing is hit." in page and "shoulder" in page


def test_check_looks_at_a_schedule_rather_than_the_box(tmp_path: Path) -> None:
    robot = planar(tmp_path / "hits", (0.5, 0.4), (0.2, 0.2))
    schedule = make_schedule(robot, duration_s=30.0, seed=1)
    of_elbow = tuple(segment for segment in schedule.segments if segment.joint == 1)
    replace(schedule, segments=of_elbow).save(tmp_path / "elbow.yaml")  # the shoulder rests: not low enough to hit
    preset = tmp_path / "hits" / "robot.yaml"
    assert run("robot", "check", preset, "--schedule", tmp_path / "elbow.yaml")[0] == 0
    schedule.save(tmp_path / "moves.yaml")
    status, output = run("robot", "check", preset, "--schedule", tmp_path / "moves.yaml")
    assert status == 1 and "from the start" in " ".join(output.split())
    speeds = examine(robot, schedule).speeds
    assert speeds is not None and (speeds > 0.1).all() and (speeds <= 0.8 * robot.max_velocity + 1e-9).all()


def test_schedule_make_refuses_unless_told_not_to_look(tmp_path: Path) -> None:
    planar(tmp_path, (0.5, 0.4), (0.2, 0.4))
    words = ("schedule", "make", "--robot", tmp_path / "robot.yaml", "--minutes", "1", "--save", tmp_path / "s.yaml")
    status, output = run(*words)
    assert status != 0 and "the schedule hits something" in output and not (tmp_path / "s.yaml").exists()
    assert run(*words, "--no-check")[0] == 0 and (tmp_path / "s.yaml").exists()
