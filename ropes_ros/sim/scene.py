"""The simulated scene: a preset's robot on a table, lights, one camera and position controllers."""

from __future__ import annotations

import ctypes.util
import math
import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import RobotError, RuntimeSetupError
from ropes_ros.robot import Robot, is_mjcf
from ropes_ros.sim.meshes import mujoco_urdf
from ropes_ros.simulation import CAMERA_KEYS, has_section, optical_rotation, section

RENDERING_HELP = "install the packages libegl1 libgl1 libgl1-mesa-dri (apt) and set MUJOCO_GL=egl"

# MuJoCo chooses its OpenGL backend when it is imported, and fails where that is missing; without a display only
# EGL can render, and without EGL there is still the physics.
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "disabled")
try:
    import mujoco as mujoco
except (ImportError, AttributeError, OSError, RuntimeError) as error:
    gl = os.environ.get("MUJOCO_GL", "")
    raise RuntimeSetupError(f"MuJoCo cannot be imported (MUJOCO_GL={gl!r}): {error}: {RENDERING_HELP}") from error

Array = npt.NDArray[np.float64]

CAMERA, TABLE, LAMP, BULB = "camera", "table", "lamp", "bulb"
_TABLE_SIZE = 8.0  # m, half the edge
_LAG_S = 0.025  # of position controllers whose gains no preset gives


def build_model(robot: Robot, width: int, height: int, timestep: float, seed: int) -> Any:
    """The preset's scene as a compiled MuJoCo model.

    Every robot joint gets a position controller (torque = stiffness * error - damping * velocity, within the
    URDF's effort limit; its gains follow from the inertia where the preset has no `sim.actuators`); the links' weight
    is compensated, as industrial controllers do. Links that a joint connects may touch.

    Args:
        robot: A robot whose preset has a `sim` section.
        width: Image width in pixels.
        height: Image height in pixels.
        timestep: Longest physics step in seconds.
        seed: Seed of the surroundings: the table's tint and the lamp's direction.

    Raises:
        RobotError: The preset has no or a malformed `sim` section, or MuJoCo refuses the URDF.
    """
    camera = section(robot, "camera", CAMERA_KEYS)
    count = len(robot.joints)
    given = has_section(robot, "actuators")
    actuators = section(robot, "actuators", {"stiffness": count, "damping": count}) if given else None
    try:
        spec = _read(robot)
        base = spec.body(robot.base_link) or spec.worldbody
        spec.option.timestep = timestep
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.visual.global_.offwidth = width
        spec.visual.global_.offheight = height
        spec.visual.quality.offsamples = 0
        spec.visual.quality.numslices, spec.visual.quality.numstacks, spec.visual.quality.numquads = 16, 8, 1
        spec.visual.map.znear = 0.02
        spec.visual.headlight.ambient = [0.45, 0.45, 0.45]
        spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
        spec.visual.headlight.specular = [0.0, 0.0, 0.0]
        for body in spec.bodies[1:]:
            body.gravcomp = 1.0
            spec.add_exclude(bodyname1=body.parent.name, bodyname2=body.name)
            if any(geom.contype == 0 for geom in body.geoms):  # it has visuals: hide its collision shapes
                for geom in body.geoms:
                    geom.group = 3 if geom.contype else geom.group
        for name in robot.joint_names:
            spec.add_actuator(
                name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=name, biastype=mujoco.mjtBias.mjBIAS_AFFINE
            )
        _add_surroundings(spec, seed)
        # MuJoCo's camera looks along -z with y up; the optical frame looks along z with y down.
        orientation = np.empty(4)
        rotation = optical_rotation(camera["position"], camera["look_at"]) @ np.diag([1.0, -1.0, -1.0])
        mujoco.mju_mat2Quat(orientation, rotation.ravel())
        base.add_camera(
            name=CAMERA,
            pos=camera["position"],
            quat=orientation,
            fovy=math.degrees(camera["fovy"][0]),
        )
        model = spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise RobotError(f"MuJoCo refuses {robot.urdf_path}: {' '.join(str(error).split())}") from error
    if actuators is None:
        stiffness, damping = _default_gains(model, robot)
    else:
        stiffness, damping = actuators["stiffness"], actuators["damping"]
    model.actuator_gainprm[:, 0] = stiffness
    model.actuator_biasprm[:, 1] = -stiffness
    model.actuator_biasprm[:, 2] = -damping
    return model


def _read(robot: Robot) -> Any:
    """The preset's robot as a MuJoCo specification, without what else its file may hold.

    Joints that the preset does not name are fixed, which for MJCF means that they are taken out.
    """
    if not is_mjcf(robot.urdf_path):
        spec = mujoco.MjSpec.from_string(mujoco_urdf(robot))
        for mesh in spec.meshes:
            # Of the volume of an open or flat mesh, which visual ones often are, no inertia can be made.
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        spec.compiler.balanceinertia = True
        # Links without mass, as between the axes of one joint of several, are usual in URDFs.
        spec.compiler.boundmass, spec.compiler.boundinertia = 1e-6, 1e-9
        return spec
    spec = mujoco.MjSpec.from_file(str(robot.urdf_path))
    elements = [*spec.actuators, *spec.sensors, *spec.keys, *spec.equalities, *spec.tendons]
    elements += [*spec.cameras, *spec.lights, *(joint for joint in spec.joints if joint.name not in robot.joint_names)]
    elements += [geom for geom in spec.worldbody.geoms if geom.type == mujoco.mjtGeom.mjGEOM_PLANE]
    for element in elements:
        spec.delete(element)
    return spec


def _default_gains(model: Any, robot: Robot) -> tuple[Array, Array]:
    """Stiffness [J] in Nm/rad (N/m) and damping [J] in Nm s/rad (N s/m) of position controllers for any robot.

    A joint that has the largest inertia which it meets in the box, as far as the samples tell, is critically damped and
    follows its command 25 ms late.
    """
    data = mujoco.MjData(model)
    joints = [model.joint(name) for name in robot.joint_names]
    q_index, v_index = (np.array([getattr(joint, key)[0] for joint in joints]) for key in ("qposadr", "dofadr"))
    inertia = np.zeros(len(joints))
    row = np.empty(model.nv)
    for u in np.random.default_rng(0).uniform(-1.0, 1.0, (32, len(joints))):
        data.qpos[q_index] = robot.denormalise(u)
        mujoco.mj_forward(model, data)
        for number, v in enumerate(v_index):
            mujoco.mj_mulM(model, data, row, np.eye(model.nv)[v])
            inertia[number] = max(inertia[number], row[v])
    rate = 2.0 / _LAG_S
    return inertia * rate**2, 2.0 * inertia * rate


def _add_surroundings(spec: Any, seed: int) -> None:
    """Add a table that fills the view, a lamp without shadows and a bulb that is off; the seed draws tint and light."""
    rng = np.random.default_rng(seed)
    spec.worldbody.add_geom(
        name=TABLE,
        type=mujoco.mjtGeom.mjGEOM_BOX,  # a plane would be drawn in many more pieces
        size=[_TABLE_SIZE, _TABLE_SIZE, 0.05],
        pos=[0.0, 0.0, -0.05],
        rgba=[*rng.uniform(0.25, 0.28, 3), 1.0],
    )
    spec.worldbody.add_light(
        name=LAMP,
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        dir=np.array([-0.4, 0.3, -0.85]) + rng.uniform(-0.05, 0.05, 3),
        diffuse=[0.45, 0.45, 0.45],
        specular=[0.0, 0.0, 0.0],
        castshadow=False,
    )
    spec.worldbody.add_light(
        name=BULB,
        type=mujoco.mjtLightType.mjLIGHT_SPOT,  # of mjLIGHT_POINT, MuJoCo 4.0's renderer shows nothing
        cutoff=90.0,
        exponent=0.0,
        active=False,
        specular=[0.0, 0.0, 0.0],
        castshadow=False,
    )
