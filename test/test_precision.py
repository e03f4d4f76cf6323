"""Nested integer weights: the arithmetic, the fine-tuning, the files of each precision, and updates by difference."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from stick_frames import SIZE, stick_frames
from synthetic import stick_robot

from ropes_ros import cli
from ropes_ros import encoder as encoder_module
from ropes_ros.errors import ModelError, RopesError, TrainingError
from ropes_ros.nested import (
    ZERO,
    byte_digits,
    digit_values,
    digits_a_byte,
    pack,
    slice_codes,
    unpack,
    values_of,
)

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from ropes_ros.bench.precision import QUICK, Settings, amend_card, measure
from ropes_ros.bench.precision_targets import judge, nested_exact, size_shares
from ropes_ros.dataset import FrameSet
from ropes_ros.encoder import (
    FRAMES_FILE,
    PRECISION_FILES,
    Encoder,
    load_encoder,
    read_frames,
    shipped_model,
    write_frames,
)
from ropes_ros.export import export, export_quantised
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.calibrate import Calibrated
from ropes_ros.learning.checkpoint import encoder_of, load_checkpoint, load_net
from ropes_ros.learning.mixing import mix
from ropes_ros.learning.qat import Lesson, QuantiseConfig, Quantised, fine_tune, prepare_lesson, quantise
from ropes_ros.learning.quantised_checkpoint import calibrations_of
from ropes_ros.learning.quantize import (
    CONVOLUTIONS,
    EDGES,
    QuantisedLinear,
    QuantisedNet,
    best_scale,
    size_share,
    sliced,
)
from ropes_ros.learning.train import TrainConfig, train
from ropes_ros.learning.validation import prepare
from ropes_ros.model_delivery import apply, difference
from ropes_ros.onnx_weights import OPSET, NestedWeight, replace_weights
from ropes_ros.robot import load_robot

CONFIG = TrainConfig(
    image_size=SIZE, epochs=3, batch_size=64, occlusion=0.0, shift=0, span_s=4.0, precision="float32", seed=1
)
TUNING = QuantiseConfig(frames=600, steps=60, batch_size=64, occlusion=0.0, checks=3)
CODES = np.arange(256, dtype=np.uint8)


def paper(code: int, bits: int, *, extra: bool) -> int:
    """The digit of the published slice, in whole numbers and halves up."""
    step = 2 ** (8 - bits)
    digit = (2 * code + step) // (2 * step)
    return digit if extra else min(digit, 2**bits - 1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("extra", [False, True])
def test_slices_are_the_published_function_of_the_codes(bits: int, extra: bool) -> None:
    extra = extra and bits < 8
    digits = slice_codes(CODES, bits, extra=extra)
    assert digits.tolist() == [paper(code, bits, extra=extra) for code in range(256)]
    assert set(digits.tolist()) == set(range(values_of(bits, extra=extra)))
    worth = digit_values(bits, extra=extra)[digits]
    assert np.abs(worth - (CODES.astype(int) - ZERO)).max() <= 2 ** (8 - bits)
    scale = torch.tensor([0.5])
    weight = torch.from_numpy((CODES.astype(np.float32) - ZERO)[None]) * 0.5
    torch.testing.assert_close(sliced(weight, scale, bits, extra=extra)[0], torch.from_numpy(worth) * 0.5)


@pytest.mark.parametrize("values", [2, 3, 4, 5, 16, 17, 256])
def test_packed_digits_come_back(values: int) -> None:
    digits = np.random.default_rng(values).integers(0, values, (7, 31)).astype(np.uint8)
    packed = pack(digits, values)
    assert len(packed) == -(-digits.size // digits_a_byte(values))
    assert values ** digits_a_byte(values) <= 256 < values ** (digits_a_byte(values) + 1)
    np.testing.assert_array_equal(unpack(packed, values, digits.size), digits.reshape(-1))
    np.testing.assert_array_equal(byte_digits(values)[packed[0]], digits.reshape(-1)[: digits_a_byte(values)])


def test_gradients_pass_the_rounding_and_stop_at_the_clamp() -> None:
    weight = torch.tensor([[0.1, -0.2, 5.0]], requires_grad=True)
    sliced(weight, torch.tensor([0.01]), 2).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_a_scale_for_two_bits_is_not_that_of_the_largest_weight() -> None:
    weight = torch.randn(4, 500, generator=torch.Generator().manual_seed(0))
    plain = weight.abs().amax(dim=1) / (ZERO - 1)
    chosen = best_scale(weight, {2: 1.0})
    assert (chosen < 0.8 * plain).all()
    assert (sliced(weight, chosen, 2) - weight).square().mean() < (sliced(weight, plain, 2) - weight).square().mean()


def graph_of(shape: tuple[int, ...], weight: NestedWeight) -> onnx.ModelProto:
    """A linear layer or a convolution with such a weight, of an input x."""
    helper = onnx.helper
    kind, more = ("Gemm", {"transB": 1}) if len(shape) == 2 else ("Conv", {})
    sizes = {"w": shape, "b": shape[:1]}
    parts = [onnx.numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in sizes.items()]
    given, out = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * len(shape)) for name in "xy")
    graph = helper.make_graph([helper.make_node(kind, ["x", "w", "b"], ["y"], **more)], "g", [given], [out], parts)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    replace_weights(model, {"w": weight})
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("bits, extra", [(8, False), (4, False), (4, True), (2, False), (2, True)])
@pytest.mark.parametrize("shape", [(64, 256), (70, 48), (64, 7), (5, 256), (4, 3, 3, 3)])
def test_a_stored_weight_runs_as_what_it_stands_for(
    bits: int, extra: bool, shape: tuple[int, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(bits)
    codes, scale = rng.integers(0, 256, shape).astype(np.uint8), rng.random(shape[0]).astype(np.float32)
    weight = NestedWeight(codes, scale, bits, extra, folded=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = onnxruntime.InferenceSession(
        graph_of(shape, weight).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = rng.normal(size=(2, *shape[1:])).astype(np.float32)
    (found,) = session.run(None, {"x": x})
    wanted = x.reshape(2, -1).astype(np.float64) @ weight.values().reshape(shape[0], -1).T
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node}
    packed = bits < 8 and shape[0] >= 64 and shape[1] % 16 == 0 and values_of(bits, extra=extra) <= 16
    assert ("MatMulNBits" in kinds) == packed  # which has its activations in 8 bits
    np.testing.assert_allclose(found.reshape(2, -1), wanted, atol=(0.03 if packed else 1e-5) * np.abs(wanted).max())


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("robot")
    stick_robot(folder)
    return str(folder / "robot.yaml")


@pytest.fixture(scope="module")
def frames(preset: str) -> FrameSet:
    robot = load_robot(preset)
    return replace(stick_frames(1100), home=robot.home, half_range=robot.half_range)


@pytest.fixture(scope="module")
def checkpoint(frames: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(frames, tmp_path_factory.mktemp("float"), config=CONFIG).checkpoint


@pytest.fixture(scope="module")
def quantised(frames: FrameSet, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    def plans(net: QuantisedNet, lesson: Lesson) -> dict[str, dict[str, int]]:
        return {"mixed": mix(net, lesson.judge, size=0.5 * (size_share(net, 8) + size_share(net, 2))).plan}

    return quantise(frames, checkpoint, tmp_path_factory.mktemp("int8"), config=TUNING, plans=plans)


@pytest.fixture(scope="module")
def family(
    frames: FrameSet, checkpoint: Path, quantised: Quantised, preset: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model's folder with all precisions."""
    folder = tmp_path_factory.mktemp("family")
    export(checkpoint, folder, robot=preset, frames=np.stack([frames.images[number] for number in range(0, 800, 100)]))
    export_quantised(quantised.checkpoint, folder, robot=preset)
    return folder


def test_fine_tuning_helps_two_bits_and_keeps_the_weights_nested(frames: FrameSet, checkpoint: Path) -> None:
    content = load_checkpoint(checkpoint)
    split = prepare(frames, span_s=CONFIG.span_s, seed=CONFIG.seed).split
    lesson = prepare_lesson(load_net(content), frames, split, TUNING)
    before = fine_tune(lesson, replace(TUNING, steps=0)).net
    tuned = fine_tune(lesson, TUNING)
    assert lesson.judge(tuned.net, 2) < lesson.judge(before, 2) - 0.02
    assert min(tuned.history) < tuned.history[0]
    for bits in (4, 2):
        tuned.net.serve(bits)
        for name, layer in tuned.net.layers().items():
            codes, scale = layer.codes().numpy(), layer.log_scale.exp()
            served = digit_values(layer.bits)[slice_codes(codes, layer.bits)]
            unit = scale.reshape(-1, *[1] * (codes.ndim - 1)).numpy()
            np.testing.assert_array_equal(layer.served().numpy(), served * unit)
            assert layer.bits == (bits if name in tuned.net.free() else 8)


def test_every_precision_runs_as_torch_says_and_is_calibrated(
    family: Path, quantised: Quantised, frames: FrameSet
) -> None:
    """The exported graph beside the network with its rounding, on frames that were not stored."""
    content = load_checkpoint(quantised.checkpoint)
    net = load_net(content)
    assert isinstance(net, QuantisedNet)
    calibrations = calibrations_of(content)
    pictures = np.stack([frames.images[number] for number in range(50, 90)])
    for name in ("int8", "int4", "int2", "mixed"):
        found = Encoder(family, precision=name).run(pictures)
        net.serve(content["precisions"][name])
        with torch.no_grad():
            said = net(to_input(pictures))
            angle, std = Calibrated(calibrations[name])(said.angle, said.log_std)
        position = np.asarray(frames.home) + np.asarray(frames.half_range) * angle.numpy()
        off = np.abs(found.position - position) / found.std
        assert off.max() < 0.1 and np.median(off) < 0.01
        np.testing.assert_allclose(found.std, np.asarray(frames.half_range) * std.numpy(), rtol=0.05)
        assert 0.2 < np.median(found.novelty) < 1.5


def test_edges_and_convolutions_may_have_fewer_bits(
    frames: FrameSet, checkpoint: Path, quantised: Quantised, preset: str, tmp_path: Path
) -> None:
    """They meet integers nevertheless, in the torch network as in the file."""
    config = replace(TUNING, steps=20, checks=1, least={EDGES: 4, CONVOLUTIONS: 2})
    made = quantise(frames, checkpoint, tmp_path, config=config)
    content = load_checkpoint(made.checkpoint)
    net, usual = load_net(content), load_net(load_checkpoint(quantised.checkpoint))
    assert isinstance(net, QuantisedNet) and isinstance(usual, QuantisedNet)
    bits = [set(net.plan(precision).values()) for precision in (8, 4, 2)]
    assert bits == [{8}, {4}, {2, 4}] and net.plan(2)["stem.0"] == net.plan(2)["head"] == 4
    assert size_share(net, 2) < size_share(usual, 2) - 0.01
    pictures = frames.images[50:90]
    export_quantised(made.checkpoint, tmp_path, robot=preset, frames=frames.images[:8])
    assert nested_exact(tmp_path)
    for name in ("int8", "int4", "int2"):
        net.serve(content["precisions"][name])
        with torch.no_grad():
            angle, _ = Calibrated(calibrations_of(content)[name])(*net(to_input(pictures))[:2])
        position = np.asarray(frames.home) + np.asarray(frames.half_range) * angle.numpy()
        found = Encoder(tmp_path, precision=name).run(pictures)
        assert np.median(np.abs(found.position - position) / found.std) < 0.01
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(tmp_path / PRECISION_FILES["int2"]), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node]
    assert "QLinearConv" in kinds and "MatMulNBits" in kinds
    with pytest.raises(TrainingError, match=r"take one of \(8, 4, 2\) for"):
        quantise(frames, checkpoint, tmp_path, config=replace(config, least={EDGES: 3, CONVOLUTIONS: 8}))


def test_bytes_and_cards_follow_the_bits(family: Path, quantised: Quantised) -> None:
    net = load_net(load_checkpoint(quantised.checkpoint))
    assert isinstance(net, QuantisedNet)
    shares = [size_share(net, bits) for bits in (8, 4, 2)]
    assert shares == sorted(shares, reverse=True) and shares[0] < 0.27
    sizes = [(family / PRECISION_FILES[name]).stat().st_size for name in ("int8", "int4", "int2")]
    assert sizes == sorted(sizes, reverse=True)
    card = (family / "card.md").read_text()
    assert all(f"SHA-256 of {file}: `" in card for file in PRECISION_FILES.values())
    plan = load_checkpoint(quantised.checkpoint)["precisions"]["mixed"]
    assert len(set(plan.values())) > 1 and size_share(net, plan) <= 0.5 * (shares[0] + shares[2])


def test_a_precision_that_is_not_there_or_was_changed_is_refused(family: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(family, folder)
    assert Encoder(folder, precision="auto").precision == "int8"
    (folder / "model.onnx").unlink()  # a small robot need not hold the large file
    assert Encoder(folder, precision="int2").half_loss is not None
    (folder / PRECISION_FILES["int4"]).unlink()
    with pytest.raises(ModelError, match=r"model.int4.onnx: no such model; make its int4 version with `ropes export`"):
        Encoder(folder, precision="int4")
    pictures = read_frames(folder, SIZE)
    write_frames(folder, pictures[::-1])
    with pytest.raises(ModelError, match=r"was exported beside another frames.png"):
        Encoder(folder, precision="int8")


def test_a_file_that_is_named_is_checked_as_what_it_is(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("int8", "int2", "fp16"):
        encoder = Encoder(family / PRECISION_FILES[name])
        assert (encoder.path.name, encoder.precision) == (PRECISION_FILES[name], name)
        assert encoder.half_loss is not None
    assert Encoder(family / PRECISION_FILES["int8"], precision="int4").precision == "int4"
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (PRECISION_FILES["int2"], FRAMES_FILE, "card.md"):
        shutil.copy(family / file, folder)
    monkeypatch.setattr(sys, "argv", ["ropes", "info", str(folder), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and '"precision": "int2"' in capfd.readouterr().out
    renamed = folder / "arm.onnx"
    shutil.copy(folder / PRECISION_FILES["int2"], renamed)
    (folder / "card.md").write_text((folder / "card.md").read_text().replace(PRECISION_FILES["int2"], renamed.name))
    monkeypatch.setattr(encoder_module, "HALF_POSITION", -1.0)
    for path in (family / PRECISION_FILES["int8"], renamed):
        with pytest.raises(ModelError, match=r"angles of the stored frames change"):
            Encoder(path)


def test_auto_goes_on_with_fp32_where_integers_are_off(
    family: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setattr(encoder_module, "HALF_POSITION", -1.0)
    assert Encoder(family, precision="auto", say=said.append).precision == "fp32"
    assert len(said) == 1 and said[0].endswith("fp32 is taken")


def test_auto_goes_on_with_fp32_where_integers_load_and_do_not_run(family: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(family, folder)
    path = folder / PRECISION_FILES["int8"]
    before, model = encoder_module.file_sha256(path), onnx.load(str(path))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 7, 11, 13]), "shape.bad"))
    last = next(node for node in model.graph.node if "novelty" in node.output)
    last.output[list(last.output).index("novelty")] = "novelty.good"
    for kind, inputs, out, more in (
        ("Reshape", ["image", "shape.bad"], "image.bad", {}),  # no camera's picture has so many pixels
        ("Cast", ["image.bad"], "image.float", {"to": onnx.TensorProto.FLOAT}),
        ("ReduceSum", ["image.float"], "sum", {"keepdims": 0}),
        ("Add", ["novelty.good", "sum"], "novelty", {}),
    ):
        model.graph.node.append(onnx.helper.make_node(kind, inputs, [out], **more))
    onnx.save(model, str(path))
    card = folder / "card.md"
    card.write_text(card.read_text().replace(before, encoder_module.file_sha256(path)))
    with pytest.raises(ModelError, match=r"model.int8.onnx: onnxruntime cannot run it \("):
        Encoder(folder, precision="int8")
    assert Encoder(folder, precision="auto").precision == "fp32"


def test_auto_takes_int8_where_a_gpu_is_offered_and_does_not_start(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "offers_gpu", lambda providers: True)
    assert Encoder(family, precision="auto").precision == "int8"


def test_updates_send_residual_bits_and_are_verified(family: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    for old, new in (("int2", "int4"), ("int4", "int8"), ("int2", "int8"), ("int8", "int2")):
        robot = tmp_path / f"{old}-{new}"
        robot.mkdir()
        for file in (PRECISION_FILES[old], FRAMES_FILE):
            shutil.copy(family / file, robot)
        whole = (family / PRECISION_FILES[new]).read_bytes()
        size = difference(family / PRECISION_FILES[old], family / PRECISION_FILES[new], sent)
        assert size < 0.8 * len(whole)
        made = apply(robot / PRECISION_FILES[old], sent)
        assert made.read_bytes() == whole
        assert load_encoder(robot, precision=new).precision == new
    with pytest.raises(ModelError, match=r"was made from model.int8.onnx with SHA-256"):
        apply(family / PRECISION_FILES["int4"], sent, tmp_path / "nowhere")
    content = sent.read_bytes()
    for damaged in (content[:-20], content[: len(content) // 2], b"else" + content):
        sent.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"is damaged|is no difference"):
            apply(family / PRECISION_FILES["int8"], sent, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_float_checkpoint_has_no_integer_precisions(
    checkpoint: Path, quantised: Quantised, family: Path, preset: str
) -> None:
    with pytest.raises(TrainingError, match=r"no integer weights: make one that has with `ropes quantize`"):
        export_quantised(checkpoint, family, robot=preset)
    with pytest.raises(TrainingError, match=r"this checkpoint has integer weights: name the one"):
        encoder_of(load_checkpoint(quantised.checkpoint))
    with pytest.raises(TrainingError, match=r"has integer weights"):
        export(quantised.checkpoint, family, robot=preset)


def test_a_mix_keeps_to_its_budget(quantised: Quantised) -> None:
    """With a loss that counts a layer's missing bits, the layer that costs least for its bytes is cut first."""
    net = load_net(load_checkpoint(quantised.checkpoint))
    assert isinstance(net, QuantisedNet)

    def loss(of: QuantisedNet, precision: object) -> float:
        plan = of.plan(precision)  # type: ignore[arg-type]
        return 1.0 + sum(8 - bits for bits in plan.values())

    least = size_share(net, 2)
    found = mix(net, loss, size=least)
    assert found.size == pytest.approx(least) and found.plan == net.plan(2)
    assert mix(net, loss, loss=0.0).plan == net.plan(8)
    assert mix(net, loss, loss=4.0).loss == pytest.approx(loss(net, 8) + 4.0)
    with pytest.raises(TrainingError, match=r"with the fewest bits they take"):
        mix(net, loss, size=0.5 * least)
    with pytest.raises(TrainingError, match=r"one budget"):
        mix(net, loss)


class Layers:
    """Two large layers and a small one, whose bits may be chosen; all that `mix` asks of a network."""

    def __init__(self, *, extra: bool = False) -> None:
        sizes = {"one": (200, 100), "two": (180, 100), "three": (20, 100)}
        self.whole = {name: QuantisedLinear.of(torch.nn.Linear(*size)) for name, size in sizes.items()}
        for layer in self.whole.values():
            layer.extra = extra

    def free(self) -> list[str]:
        return list(self.whole)

    def layers(self) -> dict[str, QuantisedLinear]:
        return self.whole

    def plan(self, precision: int | dict[str, int]) -> dict[str, int]:
        return dict.fromkeys(self.whole, precision) if isinstance(precision, int) else precision


def test_what_a_large_step_left_of_the_budget_is_used() -> None:
    """By bytes saved the large layers are cut first, to what leaves room for more bits of the small one."""
    cost = {"one": 1.0, "two": 1.0, "three": 0.5}
    missing = {8: 0.0, 4: 1.0, 2: 1.5}

    def loss(net: object, plan: dict[str, int]) -> float:
        return sum(cost[name] * missing[bits] for name, bits in net.plan(plan).items())  # type: ignore[attr-defined]

    net = Layers()
    budget = size_share(net, {"one": 4, "two": 2, "three": 8})  # type: ignore[arg-type]
    found = mix(net, loss, size=budget)  # type: ignore[arg-type]
    assert found.size <= budget
    others = [
        dict(zip(cost, bits, strict=True))
        for bits in product((8, 4, 2), repeat=3)
        if size_share(net, dict(zip(cost, bits, strict=True))) <= budget  # type: ignore[arg-type]
    ]
    assert found.loss == min(loss(net, plan) for plan in others)


def test_a_mix_passes_over_slices_that_save_nothing() -> None:
    """With the extra value a weight of 4 bits takes a byte."""
    net = Layers(extra=True)
    budget = size_share(net, {"one": 2, "two": 8, "three": 8})  # type: ignore[arg-type]
    found = mix(net, lambda of, plan: -float(sum(of.plan(plan).values())), size=budget)  # type: ignore[arg-type]
    assert found.size <= budget and set(found.plan.values()) == {8, 2}


def test_a_weight_that_is_not_the_slice_is_found(family: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(family, folder)
    assert nested_exact(folder)
    net_shares, model = size_shares(folder), onnx.load(str(folder / PRECISION_FILES["int2"]))
    assert net_shares["int8"] > net_shares["int4"] > net_shares["int2"] > 1.0 / 16.0
    packed = next(tensor for tensor in model.graph.initializer if tensor.name == "net.inner.hidden.1.weight.packed")
    packed.raw_data = bytes([packed.raw_data[0] ^ 1]) + packed.raw_data[1:]
    onnx.save(model, str(folder / PRECISION_FILES["int2"]))
    assert not nested_exact(folder)


def test_targets_are_ratios_to_fp32_of_the_same_run() -> None:
    def row(error: float, latency: float) -> dict[str, float]:
        return {"mean_joint_mae_deg": error, "mcc": 0.99, "bytes": 1.0, "latency_ms_p50": latency}

    figures = {"fp32": row(2.0, 2.0), "int8": row(2.03, 1.7), "int4": row(2.3, 2.0), "int2": row(2.9, 2.0)}
    shares = {"int8": 0.25, "int4": 0.14, "int2": 0.09}
    judged = judge(figures, shares, exact=True, nested=[2.9, 3.0], alone=[2.8, 3.0])
    reached = {entry.name: entry.reached for entry in judged}
    assert reached == {
        "int8_error_ratio": True,
        "int4_error_ratio": False,
        "int2_error_ratio": True,
        "int8_weights_share": True,
        "int4_weights_share": True,
        "int2_weights_share": True,
        "int2_error_deg": True,
        "int8_latency_ratio": False,
        "nested_exact": True,
    }
    unmeasured = judge({}, {}, exact=None, nested=[], alone=[])
    assert all(entry.reached is None for entry in unmeasured) and len(unmeasured) == len(judged)


def test_a_card_takes_the_newest_table(family: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    shutil.copy(family / "card.md", card)
    clean = {"mean_joint_mae_deg": 1.234, "mcc": 0.99, "tip_error_mm_median": 5.0}
    told = {"covered": 1.0, "moved": 0.975}
    costs = {"bytes": 2_500_000, "load_s": 0.1, "latency_ms_p50": 1.5, "latency_ms_p99": 2.0, "cpu_ms": 1.4}
    result = {
        "rows": {"int8": {"accuracy": {"clean": clean}, "novelty_auroc": told, **costs, "memory_mb": 40.0}},
        "settings": {"conditions": ("clean",), "poses": 100, "seed": 3, "rounds": 1},
    }
    amend_card(card, result)
    result["rows"]["int4"] = result["rows"].pop("int8")
    amend_card(card, result)
    text = card.read_text()
    assert text.startswith((family / "card.md").read_text().rstrip("\n"))
    assert "100 fresh poses" in text and "seed 3" in text and "medians of 1 rounds" in text
    assert "| int4 | 1.23 | 0.990 | 5.0 | 0.975 | 2.50 | 0.10 | 1.50 | 2.00 | 1.40 | 40 |" in text
    assert "| int8 |" not in text
    with pytest.raises(RopesError, match=r"no such card"):
        amend_card(tmp_path / "absent.md", result)


def test_the_shipped_model_has_its_precisions() -> None:
    assert nested_exact(shipped_model("arm6"))
    for name in ("int8", "int4", "int2"):
        loss = Encoder(shipped_model("arm6"), precision=name).half_loss
        assert loss is not None and loss.position < 0.25


def test_frames_that_are_stored_stay_those_on_which_files_are_checked(
    family: Path, quantised: Quantised, frames: FrameSet, preset: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(family, folder)
    stored = (folder / FRAMES_FILE).read_bytes()
    others = np.stack([frames.images[number] for number in range(900, 930)])
    export_quantised(quantised.checkpoint, folder, robot=preset, precisions=("int4",), frames=others)
    assert (folder / FRAMES_FILE).read_bytes() == stored
    assert Encoder(folder, precision="int4").precision == "int4" and Encoder(folder, precision="int8")
    alone = tmp_path / "alone"
    export_quantised(quantised.checkpoint, alone, robot=preset, precisions=("int4",), frames=others)
    assert len(read_frames(alone, SIZE)) == 16 and Encoder(alone, precision="int4").precision == "int4"


def test_a_model_that_does_not_pass_its_check_replaces_none(
    family: Path, quantised: Quantised, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(family, folder)
    write_frames(folder, read_frames(folder, SIZE)[::-1])  # so that new files differ from those that are there
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(encoder_module, "HALF_POSITION", -1.0)
    with pytest.raises(ModelError, match=r"in int8, angles of the stored frames change"):
        export_quantised(quantised.checkpoint, folder, robot=preset)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_integer_weights_of_another_training_are_not_put_beside_a_model(
    family: Path, quantised: Quantised, preset: str, tmp_path: Path
) -> None:
    folder, other = tmp_path / "model", tmp_path / "other.pt"
    shutil.copytree(family, folder)
    content = load_checkpoint(quantised.checkpoint)
    content["progress"] = [*content["progress"][:2], content["progress"][2] + 0.01, *content["progress"][3:]]
    torch.save(content, other)
    with pytest.raises(ModelError, match=r"model.onnx: is of another training than these integer weights"):
        export_quantised(other, folder, robot=preset)


def test_a_card_says_nothing_measured_of_a_file_that_was_replaced(
    family: Path, quantised: Quantised, preset: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(family, folder)
    card = folder / "card.md"
    card.write_text(card.read_text() + f"\n{encoder_module.CARD_HEADING}\n\n| int8 | 1.23 |\n")
    export_quantised(quantised.checkpoint, folder, robot=preset)
    assert "| int8 | 1.23 |" in card.read_text()  # the same bytes as before
    write_frames(folder, read_frames(folder, SIZE)[::-1])
    export_quantised(quantised.checkpoint, folder, robot=preset, precisions=("int8",))
    assert encoder_module.CARD_HEADING not in card.read_text()
    assert Encoder(folder, precision="int8").precision == "int8"


def test_networks_without_maps_are_refused() -> None:
    inner = {"kind": "angle", "image_size": [48, 40], "joints": 2, "backbone": "small", "dropout": 0.0, "codes": 0}
    aligned = {"kind": "aligned", "inner": inner, "joints": 2, "knots": 8}
    with pytest.raises(TrainingError, match=r"of kind 'aligned' cannot have integer weights"):
        QuantisedNet({"kind": "quantised", "inner": aligned, "extra": False})


def test_ropes_quantize_refuses_before_the_work(
    frames: FrameSet,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = [frames]
    monkeypatch.setattr("ropes_ros.dataset.load_frames", lambda *arguments, **options: given[0])
    (tmp_path / "file").write_text("in the way")

    def said(*options: str) -> str:
        words = ["ropes", "quantize", str(checkpoint), "bag", "--steps", "0", "--frames", "100", *options]
        monkeypatch.setattr(sys, "argv", words)
        assert cli.main() == 1
        found = capfd.readouterr()
        assert "looking at the frames" not in found.out
        return found.err

    out = ("--out", str(tmp_path / "out"))
    assert re.search(r"--mixed 0.01: with the fewest bits .* take 0\.\d+", said("--mixed", "0.01", *out))
    assert "file exists" in said("--out", str(tmp_path / "file")).lower()
    given[0] = replace(frames, bag_hash="2" * 64)
    assert "this bag (2222222222222222) is not the one that the encoder was trained on" in said(*out)
    assert not list((tmp_path / "out").iterdir())


def test_the_bench_leaves_out_what_does_not_run_here(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was exported without frames has a file of 16 bit that is refused."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (PRECISION_FILES["fp32"], PRECISION_FILES["fp16"], "card.md"):
        shutil.copy(family / file, folder)

    def loaded(folder: Path, precision: str, settings: Settings) -> dict[str, str]:
        return {"clean": Encoder(folder, precision=precision).precision}  # a robot that the simulator does not know

    monkeypatch.setattr("ropes_ros.bench.precision.accuracy", loaded)
    monkeypatch.setattr("ropes_ros.bench.precision._told", lambda folder, precision, settings: {"covered": 1.0})
    found = measure(folder, tmp_path / "out", replace(QUICK, inferences=5))
    assert list(found["rows"]) == ["fp32"] and found["rows"]["fp32"]["latency_ms_p50"] > 0.0
    assert "frames.png: missing" in found["refused"]["fp16"]
    (folder / PRECISION_FILES["fp32"]).unlink()
    with pytest.raises(RopesError, match=r"no precision runs: .*no such model"):
        measure(folder, tmp_path / "out", QUICK)
