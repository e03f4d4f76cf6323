"""Where a robot's files are found: packages, package:// names, xacro; and meshes as MuJoCo takes them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ropes_ros.description import robot_element
from ropes_ros.errors import RobotError
from ropes_ros.model_files import expand_xacro, locate, parse_description, resolve_mesh
from ropes_ros.robot import Robot, load_robot

CUBE = "\n".join(
    [f"v {x} {y} {z}" for x in (0, 0.1) for y in (0, 0.1) for z in (0, 0.1)]
    + ["f 1 2 4", "f 1 4 3", "f 5 7 8", "f 5 8 6", "f 1 5 6", "f 1 6 2", "f 3 4 8", "f 3 8 7", "f 1 3 7", "f 1 7 5"]
    + ["f 2 6 8", "f 2 8 4"]
)
COLLADA = """<?xml version="1.0"?>
<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><unit name="centimeter" meter="0.01"/><up_axis>Z_UP</up_axis></asset>
<library_effects><effect id="e"><profile_COMMON><technique sid="common"><lambert>
<diffuse><color>1 0 0 1</color></diffuse></lambert></technique></profile_COMMON></effect></library_effects>
<library_materials><material id="m"><instance_effect url="#e"/></material></library_materials>
<library_geometries><geometry id="g"><mesh>
<source id="p"><float_array id="a" count="12">0 0 0 10 0 0 0 10 0 0 0 10</float_array><technique_common>
<accessor source="#a" count="4" stride="3"><param name="X" type="float"/><param name="Y" type="float"/>
<param name="Z" type="float"/></accessor></technique_common></source>
<vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
<triangles count="4" material="s"><input semantic="VERTEX" source="#v" offset="0"/>
<p>0 2 1 0 1 3 1 2 3 0 3 2</p></triangles></mesh></geometry></library_geometries>
<library_visual_scenes><visual_scene id="sc"><node id="n"><instance_geometry url="#g"><bind_material>
<technique_common><instance_material symbol="s" target="#m"/></technique_common></bind_material></instance_geometry>
</node></visual_scene></library_visual_scenes><scene><instance_visual_scene url="#sc"/></scene></COLLADA>
"""
SLIDER = """<robot name="slider" xmlns:other="x">
  <link name="base"/>
  <link name="cart">
    <inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>
    <visual><geometry><mesh filename="{mesh}"/></geometry></visual>
    <collision><geometry><box size="0.1 0.1 0.1"/></geometry></collision></link>
  <joint name="rail" type="prismatic"><parent link="base"/><child link="cart"/><origin xyz="0 0 0.5"/>
    <axis xyz="1 0 0"/><limit lower="-0.4" upper="0.6" velocity="0.5" effort="100" undeclared:acceleration="1"/></joint>
</robot>
"""
PRESET = {
    "name": "slider",
    "urdf": "slider.urdf",
    "base_link": "base",
    "tip_link": "cart",
    "joints": {"rail": {"home": 0.1, "half_range": 0.3, "max_acceleration": 1.0}},
    "sim": {"camera": {"position": [1.5, 0.0, 1.0], "look_at": [0.0, 0.0, 0.5], "fovy": 0.7}},
}


def slider(folder: Path, mesh: str, **changes: object) -> Robot:
    (folder / "slider.urdf").write_text(SLIDER.format(mesh=mesh), encoding="utf-8")
    (folder / "robot.yaml").write_text(yaml.safe_dump({**PRESET, **changes}), encoding="utf-8")
    return load_robot(folder / "robot.yaml")


def test_a_prismatic_joint_is_in_metres(tmp_path: Path) -> None:
    (tmp_path / "cube.obj").write_text(CUBE)
    robot = slider(tmp_path, "cube.obj")
    (joint,) = robot.joints
    assert (joint.prismatic, joint.unit, joint.lower, joint.upper) == (True, "m", -0.4, 0.6)
    np.testing.assert_allclose(robot.fk([0.25])[0], [0.25, 0.0, 0.5])
    with pytest.raises(RobotError, match=r"\[-0.4000, 0.6000\] m, outside|\[-0.5000, 0.5000\] m, outside"):
        slider(tmp_path, "cube.obj", joints={"rail": {"home": 0.0, "half_range": 0.5, "max_acceleration": 1.0}})


def test_a_urdf_of_a_python_package_is_found_where_it_is_installed(tmp_path: Path, monkeypatch) -> None:
    site = tmp_path / "site"
    (site / "some_robots" / "arm").mkdir(parents=True)
    (site / "some_robots" / "arm" / "arm.urdf").write_text("<robot/>")
    info = site / "some_robots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-robots\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    entry = {"package": "some-robots", "path": "some_robots/arm/arm.urdf"}
    assert locate(entry, tmp_path / "robot.yaml") == site / "some_robots" / "arm" / "arm.urdf"
    with pytest.raises(RobotError, match=r"has no file some_robots/leg.urdf"):
        locate({**entry, "path": "some_robots/leg.urdf"}, tmp_path / "robot.yaml")
    with pytest.raises(RobotError, match=r"package 'none-such'.* is not installed: pip install none-such"):
        locate({**entry, "package": "none-such"}, tmp_path / "robot.yaml")


def test_a_downloaded_description_tells_its_path_or_why_not(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "robot_descriptions"
    package.mkdir()
    (tmp_path / "arm.urdf").write_text("<robot/>")
    (package / "__init__.py").write_text("")
    (package / "arm_description.py").write_text(f"URDF_PATH = {str(tmp_path / 'arm.urdf')!r}")
    (package / "far_description.py").write_text("raise OSError('no route to host')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "robot_descriptions"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    entry = {"package": "robot_descriptions", "path": "arm_description"}
    assert locate(entry, tmp_path / "robot.yaml") == tmp_path / "arm.urdf"
    with pytest.raises(RobotError, match="cannot be downloaded, see to the network: no route to host"):
        locate({**entry, "path": "far_description"}, tmp_path / "robot.yaml")
    with pytest.raises(RobotError, match="is not the name of a module"):
        locate({**entry, "path": "os.path"}, tmp_path / "robot.yaml")


def test_package_names_lead_to_every_place_where_packages_are(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.delenv("ROS_PACKAGE_PATH", raising=False)
    name, urdf = "package://arms/meshes/link.stl", tmp_path / "elsewhere" / "arm.urdf"

    def file_in(folder: Path) -> Path:
        file = folder / "meshes" / "link.stl"
        file.parent.mkdir(parents=True)
        file.write_text("")
        return file

    with pytest.raises(RobotError, match=r"'package://arms/meshes/link.stl' is not there.*--package-dir"):
        resolve_mesh(name, urdf, {})
    above = file_in(tmp_path / "ws" / "arms")
    assert resolve_mesh(name, tmp_path / "ws" / "arms" / "urdf" / "arm.urdf", {}) == above
    listed = file_in(tmp_path / "src" / "arms")
    monkeypatch.setenv("ROS_PACKAGE_PATH", f"{tmp_path / 'none'}:{tmp_path / 'src'}")
    assert resolve_mesh(name, urdf, {}) == listed
    index = tmp_path / "prefix" / "share" / "ament_index" / "resource_index" / "packages" / "arms"
    index.parent.mkdir(parents=True)
    index.write_text("")
    installed = file_in(tmp_path / "prefix" / "share" / "arms")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    assert resolve_mesh(name, urdf, {}) == installed
    given = file_in(tmp_path / "given")
    assert resolve_mesh(name, urdf, {"arms": tmp_path / "given"}) == given


def test_the_presets_packages_are_used(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "cube.obj").write_text(CUBE)
    robot = slider(tmp_path, "package://carts/cube.obj", packages={"carts": "there"})
    (mesh,) = robot_element(robot).iter("mesh")
    assert mesh.get("filename") == (tmp_path / "there" / "cube.obj").as_uri()
    with pytest.raises(RobotError, match=r"packages: carts: .* is no folder"):
        slider(tmp_path, "package://carts/cube.obj", packages={"carts": "nowhere"})


def test_prefixes_that_nobody_declared_do_not_stop_a_urdf(tmp_path: Path) -> None:
    file = tmp_path / "arm.urdf"
    file.write_text('<?xml version="1.0"?>\n<robot name="a"><joint drake:speed="1" x="http://y"/><gazebo:tag/></robot>')
    assert parse_description(file)[0].tag == "joint"
    file.write_text("<robot><link></robot>")
    with pytest.raises(RobotError, match="it is no XML"):
        parse_description(file)


def test_xacro_is_expanded_or_asked_for(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "arm.urdf.xacro"
    file.write_text(
        '<robot xmlns:xacro="http://www.ros.org/wiki/xacro" name="a"><xacro:arg name="size" default="1"/>'
        '<link name="link_$(arg size)"/></robot>'
    )
    monkeypatch.setenv("PATH", "")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "xacro", None)
        with pytest.raises(RobotError, match=r"xacro is not installed: pip install xacro.*give robot.urdf"):
            expand_xacro(file, {})
    pytest.importorskip("xacro")
    assert 'name="link_7"' in expand_xacro(file, {"size": "7"})
    file.write_text('<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:unknown/></robot>')
    with pytest.raises(RobotError, match="xacro refuses"):
        expand_xacro(file, {})


# Meshes in MuJoCo


@pytest.fixture
def arm_of(tmp_path: Path, monkeypatch):
    pytest.importorskip("mujoco")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from ropes_ros.sim.arm import SimArm

    return lambda robot: SimArm(robot, render=False)


def meshes_of(arm) -> list[tuple[list[float], list[float]]]:
    """Extent in m and colour of each mesh that is drawn."""
    model, found = arm._model, []
    for geom in range(model.ngeom):
        if (mesh := model.geom_dataid[geom]) >= 0:
            first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
            vertices = model.mesh_vert[first : first + count]
            found.append((np.ptp(vertices, axis=0).round(3).tolist(), model.geom_rgba[geom][:3].tolist()))
    return found


def test_collada_is_converted_with_its_unit_and_colour(tmp_path: Path, arm_of) -> None:
    pytest.importorskip("trimesh")
    pytest.importorskip("collada")
    (tmp_path / "cart.dae").write_text(COLLADA)
    robot = slider(tmp_path, "cart.dae")
    ((extent, rgb),) = meshes_of(arm_of(robot))
    assert sorted(extent)[-1] == pytest.approx(0.141, abs=0.03)  # MuJoCo turns meshes to their principal axes
    assert rgb == [1.0, 0.0, 0.0]
    files = sorted((tmp_path / "cache").rglob("*.obj"))
    assert len(files) == 1
    before = files[0].stat().st_mtime_ns
    arm_of(robot)
    assert files[0].stat().st_mtime_ns == before  # made once


def test_materials_of_an_obj_are_seen(tmp_path: Path, arm_of) -> None:
    pytest.importorskip("trimesh")
    (tmp_path / "c.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
    faces = CUBE.splitlines()
    text = "\n".join(["mtllib c.mtl", *faces[:8], "usemtl red", *faces[8:14], "usemtl blue", *faces[14:]])
    (tmp_path / "cart.obj").write_text(text)
    assert sorted(rgb for _, rgb in meshes_of(arm_of(slider(tmp_path, "cart.obj")))) == [[0, 0, 1], [1, 0, 0]]


def test_stl_that_is_text_is_converted(tmp_path: Path, arm_of) -> None:
    pytest.importorskip("trimesh")
    corners = ([0, 0, 0], [0.2, 0, 0], [0, 0.2, 0], [0, 0, 0.2])
    facets = ""
    for triangle in ((0, 2, 1), (0, 1, 3), (1, 2, 3), (0, 3, 2)):
        points = "".join(f"vertex {' '.join(map(str, corners[i]))}\n" for i in triangle)
        facets += f"facet normal 0 0 0\nouter loop\n{points}endloop\nendfacet\n"
    (tmp_path / "cart.stl").write_text(f"solid cart\n{facets}endsolid cart\n")
    assert len(meshes_of(arm_of(slider(tmp_path, "cart.stl")))) == 1


def test_a_mesh_that_cannot_be_read_is_named(tmp_path: Path, arm_of) -> None:
    pytest.importorskip("trimesh")
    pytest.importorskip("collada")
    (tmp_path / "cart.dae").write_text("<COLLADA/>")
    with pytest.raises(RobotError, match=r"cart.dae: this mesh (cannot be converted|holds no triangles)"):
        arm_of(slider(tmp_path, "cart.dae"))


def test_gains_by_default_follow_a_command_closely(tmp_path: Path, arm_of) -> None:
    (tmp_path / "cube.obj").write_text(CUBE)
    arm = arm_of(slider(tmp_path, "cube.obj"))

    def command(time: float) -> np.ndarray:
        return np.array([0.1 + 0.2 * np.sin(time)])

    worst = 0.0
    for step in range(1, 200):
        arm.step_to(step / 50, command)
        worst = max(worst, float(np.abs(arm.positions() - command(step / 50 - 0.025))[0])) if step > 25 else worst
    assert worst < 0.002  # 2 mm, 25 ms late, of a motion of 200 mm


MJCF = """<mujoco model="pole">
  <worldbody><geom type="plane" size="1 1 1"/><light pos="0 0 3"/><camera name="old" pos="1 1 1"/>
    <body name="stand"><geom type="box" size="0.1 0.1 0.05"/>
      <body name="pole" pos="0 0 0.1"><joint name="hinge" axis="0 1 0" range="-90 90"/>
        <geom type="capsule" fromto="0 0 0 0 0 0.4" size="0.03"/>
        <body name="clip" pos="0 0 0.4"><joint name="jaw" axis="0 0 1" range="-10 10"/>
          <geom type="box" size="0.05 0.02 0.02"/></body></body></body></worldbody>
  <actuator><motor joint="hinge"/></actuator>
  <keyframe><key qpos="0.1 0"/></keyframe>
</mujoco>"""


def test_an_mjcf_robot_is_simulated_with_our_camera_and_controllers(tmp_path: Path, arm_of) -> None:
    (tmp_path / "pole.xml").write_text(MJCF)
    joints = {"hinge": {"home": 0.2, "half_range": 0.5, "max_velocity": 1.0, "max_acceleration": 3.0}}
    preset = {**PRESET, "name": "pole", "urdf": "pole.xml", "base_link": "stand", "tip_link": "clip", "joints": joints}
    robot = Robot(preset, tmp_path / "robot.yaml")
    assert robot.lower[0] == pytest.approx(-np.pi / 2)
    np.testing.assert_allclose(robot.fk([np.pi / 2])[0], [0.4, 0.0, 0.1], atol=1e-9)
    arm = arm_of(robot)
    assert (arm._model.njnt, arm._model.nu, arm._model.ncam) == (1, 1, 1)
    arm.step_to(2.0, lambda time: np.array([0.5]))
    assert arm.positions()[0] == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(RobotError, match="MJCF, which other ROS programs cannot read"):
        robot_element(robot)
