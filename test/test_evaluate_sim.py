"""Evaluation on the simulator's fresh poses, with a model whose answers are known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer

pytest.importorskip("mujoco")
pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from ropes_ros.bench import verify
from ropes_ros.cli.evaluate import evaluate
from ropes_ros.encoder import (
    INPUT,
    METADATA_KEY,
    OUTPUTS,
    SCHEMA_VERSION,
    Encoder,
    ModelInfo,
    file_sha256,
    load_encoder,
)
from ropes_ros.errors import ModelError, RopesError
from ropes_ros.evaluation import evaluate_sim, novelty_auroc
from ropes_ros.robot import Robot, load_robot
from ropes_ros.sim.canonical import fresh_poses, fresh_positions

STD = 0.4


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module")
def model(tmp_path_factory, robot) -> Path:
    """A model that takes every pose for home with a std of 0.4 rad; novel is what is dark: 1 - mean / 255."""
    folder = tmp_path_factory.mktemp("constant")
    write_model(folder, robot, (320, 240))
    return folder


def write_model(folder: Path, robot: Robot, camera: tuple[int, int]) -> None:
    helper, joints = onnx.helper, len(robot.joints)
    values = {
        "home": robot.home.astype(np.float32),
        "wide": np.full(joints, STD, np.float32),
        "nothing": np.zeros(joints, np.float32),
        "white": np.float32(255.0),
        "one": np.float32(1.0),
        "column": np.array([1], np.int64),
    }
    constants = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "column"], ["each"]),
        helper.make_node("Mul", ["each", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "home"], [OUTPUTS[0]]),
        helper.make_node("Add", ["zero", "wide"], [OUTPUTS[1]]),
        helper.make_node("Div", ["mean", "white"], ["brightness"]),
        helper.make_node("Sub", ["one", "brightness"], [OUTPUTS[2]]),
    ]
    image = helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ["N", camera[1], camera[0], 3])
    shapes = dict(zip(OUTPUTS, (["N", joints], ["N", joints], ["N"]), strict=True))
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "constant", [image], outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    info = ModelInfo(
        schema_version=SCHEMA_VERSION,
        robot=robot.name,
        joint_names=robot.joint_names,
        lower=tuple(robot.lower),
        upper=tuple(robot.upper),
        camera_size=camera,
        bags=(),
        schedule_hash="0" * 64,
        levels=("a", "b"),
        level_label_noise=0.5,
        supervision="none",
        calibration="none",
        figures={},
        producer="a test",
    )
    helper.set_model_props(made, {METADATA_KEY: info.to_json()})
    onnx.save(made, folder / "model.onnx")
    (folder / "card.md").write_text(f"SHA-256 of model.onnx: `{file_sha256(folder / 'model.onnx')}`")


def run(*arguments: str) -> None:
    app = typer.Typer()
    app.command()(evaluate)
    app(list(arguments), standalone_mode=False)


def test_errors_are_those_of_the_fresh_poses(robot, model, capsys):
    run(str(model), "--sim", "arm6", "--n", "40", "--seed", "7", "--poses", "observational", "--json")
    figures = json.loads(capsys.readouterr().out)
    error = np.abs(fresh_positions(robot, 40, seed=7, poses="observational") - robot.home)
    np.testing.assert_allclose(figures["joint_mae_deg"], np.degrees(error.mean(axis=0)), rtol=1e-5)
    assert figures["mean_joint_mae_deg"] == pytest.approx(np.degrees(error.mean()), rel=1e-5)
    np.testing.assert_allclose(figures["coverage_2std"], (error <= 2 * STD).mean(axis=0), atol=1e-6)
    assert min(figures["coverage_2std"]) < 1.0
    assert figures["mcc"] == pytest.approx(0.0, abs=1e-6)
    places, rotations = robot.fk(fresh_positions(robot, 40, seed=7, poses="observational"))
    home_place, home_rotation = robot.fk(robot.home)
    tip = places - home_place
    assert figures["tip_error_mm_mean"] == pytest.approx(1000 * np.linalg.norm(tip, axis=1).mean(), rel=1e-4)
    assert figures["tip_error_mm_median"] == pytest.approx(1000 * np.median(np.linalg.norm(tip, axis=1)), rel=1e-4)
    # The angle between unit quaternions' rotations: |cos(angle / 2)| is their product.
    turned = np.degrees(2.0 * np.arccos(np.minimum(np.abs(rotations @ home_rotation), 1.0)))
    assert figures["tip_rotation_deg_median"] == pytest.approx(np.median(turned), rel=1e-4)
    assert (figures["poses"], figures["n"], figures["seed"], figures["condition"]) == ("observational", 40, 7, "clean")


def test_the_model_sees_the_pictures_of_its_condition(robot, model):
    encoder = load_encoder(model)
    for condition in ("clean", "drift"):
        images, truth = fresh_poses(robot, 40, seed=2, condition=condition)
        result = evaluate_sim(encoder, robot, n=40, seed=2, condition=condition)
        np.testing.assert_array_equal(result.truth, truth)
        brightness = 1.0 - images.reshape(40, -1).mean(axis=1) / 255.0
        np.testing.assert_allclose(result.estimates.novelty, brightness, atol=1e-5)


def test_novelty_is_judged_for_each_kind_of_disturbance(robot, model):
    # To this model dark is novel: a covered lens is mostly darker than the table, an object is lighter, and a moved
    # camera shows the same brightness.
    scores = novelty_auroc(load_encoder(model), robot, n=40, seed=3)
    assert set(scores) == {"covered", "object", "moved"}
    assert 0.5 < scores["covered"] < 0.99 and scores["object"] < 0.5 and 0.2 < scores["moved"] < 0.8


def test_figures_are_shown_to_people(model, capsys):
    run(str(model), "--sim", "arm6", "--n", "4")
    text = " ".join(capsys.readouterr().out.split())
    assert "4 fresh uniform poses, clean, seed 0" in text and "joint6" in text and "supervision none;" in text
    assert re.search(r"tip rotation error median \d+\.\d\d deg", text)


def test_the_last_joint_turns_the_tip_and_does_not_move_it(robot):
    """So mm of the tip say nothing about it, as the docs warn."""
    turned = robot.home + np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.5])
    (place, rotation), (other_place, other_rotation) = robot.fk(robot.home), robot.fk(turned)
    np.testing.assert_allclose(place, other_place, atol=1e-12)
    assert 2.0 * np.arccos(abs(rotation @ other_rotation)) == pytest.approx(0.5)


def test_committed_models_are_judged_by_the_same_figures(model, monkeypatch, capsys):
    monkeypatch.setattr(verify, "POSES", 6)
    found = verify.evaluate_model(model, ("drift",))["drift"]
    run(str(model), "--sim", "arm6", "--n", "6", "--seed", str(verify.SEED), "--condition", "drift", "--json")
    figures = json.loads(capsys.readouterr().out)
    assert "tip_rotation_deg_median" in found
    assert found == {name: figures[name] for name in found}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either a BAG to evaluate on, or --sim"),
        (("bag", "--sim", "arm6"), "either a BAG to evaluate on, or --sim"),
        (("bag", "--poses", "uniform"), "--poses is about fresh poses"),
        (("bag", "--n", "5"), "--n is about fresh poses"),
        (("--sim", "arm6", "--topic", "image=/a"), "--robot and --topic are about bags"),
        (("--sim", "arm7"), "unknown robot 'arm7'"),
        (("--sim", "arm6", "--condition", "fog"), "unknown condition 'fog'"),
        (("--sim", "arm6", "--poses", "lying"), "unknown poses 'lying'"),
    ],
)
def test_what_makes_no_sense_is_refused(model, arguments, message):
    with pytest.raises(RopesError, match=message):
        run(str(model), *arguments)


def test_a_model_of_another_camera_or_robot_is_refused(robot, model, tmp_path):
    write_model(tmp_path, robot, (64, 48))
    with pytest.raises(ModelError, match="takes images of 64x48, the simulator's are 320x240"):
        evaluate_sim(Encoder(tmp_path), robot, n=4)
    preset = {**robot.preset, "name": "other"}
    with pytest.raises(ModelError, match="was trained for robot 'arm6'"):
        evaluate_sim(Encoder(model), Robot(preset, robot.urdf_path.parent / "robot.yaml"), n=4)
    with pytest.raises(RopesError, match="1 poses are too few"):
        evaluate_sim(Encoder(model), robot, n=1)
