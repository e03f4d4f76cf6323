"""Forward kinematics in torch against Pinocchio's."""

import numpy as np
import pytest
from synthetic import stick_robot

torch = pytest.importorskip("torch")

from ropes_ros.learning.kinematics import Kinematics
from ropes_ros.robot import load_robot


@pytest.mark.parametrize("name", ["arm6", "stick"])
def test_origins_and_tip_agree_with_pinocchio(name, tmp_path):
    robot = load_robot("arm6") if name == "arm6" else stick_robot(tmp_path)
    u = np.random.default_rng(0).uniform(-1.0, 1.0, (20, len(robot.joints)))
    points = Kinematics.of(robot)(torch.from_numpy(u).float()).numpy()
    assert points.shape == (20, len(robot.joints) + 1, 3)
    np.testing.assert_allclose(points[:, -1], robot.fk(robot.denormalise(u))[0], atol=1e-6)


def test_a_joint_s_origin_is_that_of_the_link_it_moves():
    robot = load_robot("arm6")
    u = np.random.default_rng(1).uniform(-1.0, 1.0, (5, 6))
    points = Kinematics.of(robot)(torch.from_numpy(u).float()).numpy()
    for number in range(6):
        link = robot.fk(robot.denormalise(u), f"link{number + 1}")[0]
        np.testing.assert_allclose(points[:, number], link, atol=1e-6)


def test_joints_that_slide_move_what_they_carry(tmp_path):
    joints = "".join(
        f'<joint name="{name}" type="{kind}"><parent link="link{number}"/><child link="link{number + 1}"/>'
        f'<origin xyz="0.1 0.2 {0.3 * number}" rpy="0.4 -0.2 0.1"/><axis xyz="{axis}"/>'
        '<limit lower="-0.5" upper="0.7" velocity="1" effort="1"/></joint>'
        for number, (name, kind, axis) in enumerate([("rail", "prismatic", "0 1 0"), ("turn", "revolute", "0.6 0 0.8"),
                                                     ("lift", "prismatic", "0 0 1")])
    )  # fmt: skip
    links = "".join(f'<link name="link{number}"/>' for number in range(4))
    (tmp_path / "slider.urdf").write_text(f'<robot name="slider">{links}{joints}</robot>')
    each = "{home: 0.1, half_range: 0.3, max_acceleration: 2.0}"
    entries = "".join(f"  {name}: {each}\n" for name in ("rail", "turn", "lift"))
    preset = tmp_path / "robot.yaml"
    preset.write_text(f"name: slider\nurdf: slider.urdf\nbase_link: link0\ntip_link: link3\njoints:\n{entries}")
    robot = load_robot(preset)
    u = np.random.default_rng(2).uniform(-1.0, 1.0, (7, 3))
    points = Kinematics.of(robot)(torch.from_numpy(u).float()).numpy()
    for number in range(3):
        link = robot.fk(robot.denormalise(u), f"link{number + 1}")[0]
        np.testing.assert_allclose(points[:, number], link, atol=1e-6)


def test_gradient_is_the_geometric_jacobian():
    robot = load_robot("arm6")
    u = torch.tensor([[0.3, -0.2, 0.5, -0.7, 0.1, 0.9]], requires_grad=True)
    kinematics = Kinematics.of(robot)
    rows = [torch.autograd.grad(kinematics(u)[0, -1, axis], u)[0][0] for axis in range(3)]
    expected = robot.jacobian(robot.denormalise(u.detach().numpy()[0]))[:3] * robot.half_range
    np.testing.assert_allclose(torch.stack(rows).numpy(), expected, atol=1e-5)


def test_constants_travel_in_the_state():
    robot = load_robot("arm6")
    made = Kinematics.of(robot)
    empty = Kinematics(made.parents, made.tip_parent)
    empty.load_state_dict(made.state_dict())
    u = torch.rand(3, 6)
    assert torch.equal(empty(u), made(u))
