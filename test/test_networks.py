"""The networks: they describe themselves, blur before they subsample, know where they look, and can be exported."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ropes_ros.errors import TrainingError
from ropes_ros.learning.networks import (
    BACKBONES,
    COORDINATES,
    LOG_STD_RANGE,
    AngleNet,
    BlurPool,
    build,
    nearest_code,
)

NAMES = [*BACKBONES, "small" + COORDINATES, "residual-small" + COORDINATES]


def images(count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.rand((count, 3, size[1], size[0]), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backbone", NAMES)
def test_a_description_and_the_weights_are_the_whole_network(backbone: str) -> None:
    torch.manual_seed(1)
    net = AngleNet((40, 24), 3, backbone=backbone, codes=5 if backbone == "small" else 0).eval()
    torch.manual_seed(2)
    twin = build(net.architecture()).eval()
    twin.load_state_dict(net.state_dict())
    pixels = images(2, (40, 24))
    for ours, theirs in zip(net(pixels), twin(pixels), strict=True):
        assert torch.equal(ours, theirs)
    assert (twin.image_size, twin.joints) == ((40, 24), 3)


def test_a_description_is_plain() -> None:
    values = AngleNet((40, 24), 3).architecture()
    assert values["kind"] == "angle" and values["image_size"] == [40, 24] and values["joints"] == 3
    assert all(isinstance(value, (str, int, float, list)) for value in values.values())


@pytest.mark.parametrize("size", [(88, 80), (33, 47), (224, 160)])
@pytest.mark.parametrize("backbone", ["small", "residual-small"])
def test_parts_agree_in_shape(backbone: str, size: tuple[int, int]) -> None:
    net = AngleNet(size, 4, backbone=backbone).eval()
    pixels = images(2, size)
    maps = net.trunk(pixels)
    assert maps.shape == (2, net.channels, net.map_size[1], net.map_size[0])
    prediction = net(pixels)
    assert prediction.angle.shape == prediction.log_std.shape == (2, 4)
    assert torch.equal(net.embed(pixels), net.hidden_of(prediction))
    assert prediction.features.shape[1] > net.units + 2 * net.channels  # earlier stages' too
    assert torch.equal(net.read(maps).angle, prediction.angle)
    assert torch.equal(net.continuous(prediction), prediction.angle)
    low, high = LOG_STD_RANGE
    assert (prediction.log_std >= low).all() and (prediction.log_std <= high).all()


def test_residual_maps_are_small_but_not_tiny() -> None:
    sides = [AngleNet((side, side), 2, backbone="residual-small").map_size[0] for side in (64, 96, 128, 160, 224)]
    assert sides == [8, 6, 8, 5, 7]


@pytest.mark.parametrize("backbone", ["large", "residual-huge", "coordinates", "residual+corners"])
def test_unknown_backbones_are_refused(backbone: str) -> None:
    with pytest.raises(TrainingError, match="choose one of small, residual-small"):
        AngleNet((40, 24), 2, backbone=backbone)


def test_unknown_kinds_and_tiny_images_are_refused() -> None:
    with pytest.raises(TrainingError, match="kind 'sibyl' is unknown"):
        build({"kind": "sibyl"})
    with pytest.raises(TrainingError, match="40x8 pixels are too small"):
        AngleNet((40, 8), 2)


def test_blur_pool_removes_what_it_cannot_represent() -> None:
    """[1 2 1] / 4 by hand: stripes of period two vanish, a constant stays, and a step is rounded to 1/4, not to 0."""
    pool = BlurPool(1)
    stripes = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 1, 6, 8)
    assert torch.allclose(pool(stripes), torch.full((1, 1, 3, 4), 0.5))
    assert torch.allclose(pool(torch.full((1, 1, 5, 7), 3.0)), torch.full((1, 1, 3, 4), 3.0))
    step = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).expand(1, 1, 4, 6)
    assert torch.allclose(pool(step)[0, 0, 0], torch.tensor([0.0, 0.25, 1.0]))


def test_coordinates_tell_place() -> None:
    """The mean over a uniform picture's maps differs from left to right only where the net is told the place."""
    grey = torch.full((1, 3, 64, 64), 0.3)
    spread = []
    for backbone in ("residual-small", "residual-small" + COORDINATES):
        torch.manual_seed(0)
        inner = AngleNet((64, 64), 2, backbone=backbone).eval().trunk(grey).detach()[:, :, 4, 2:6]
        spread.append(float((inner - inner.mean(dim=2, keepdim=True)).abs().max() / inner.abs().max()))
    assert spread[0] < 0.1 * spread[1]


def test_nearest_code_by_hand() -> None:
    """0.2 is nearest to 0.3 of (-1, 0.3, 1), -0.9 to -0.5 of (-0.5, 0, 0.5); the codes get the gradient."""
    codebook = torch.tensor([[-1.0, 0.3, 1.0], [-0.5, 0.0, 0.5]], requires_grad=True)
    values = torch.tensor([[0.2, -0.9], [0.9, 0.1]])
    found = nearest_code(values, codebook)
    assert torch.equal(found, torch.tensor([[0.3, -0.5], [1.0, 0.0]]))
    found.sum().backward()
    assert torch.equal(codebook.grad, torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]))


def test_quantised_angles_are_codes_and_pass_the_gradient() -> None:
    torch.manual_seed(0)
    net = AngleNet((32, 24), 2, dropout=0.0)
    with torch.no_grad():
        net.head.weight.mul_(30.0)
    plain = net.eval()(images(8, (32, 24)))
    net.quantise(4)
    coarse = net(images(8, (32, 24)))
    assert (coarse.angle[:, :, None] - torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])).abs().min(dim=2)[0].max() < 1e-6
    inside = plain.angle.abs() < 1.0
    assert inside.any() and ((coarse.angle - plain.angle).abs()[inside] <= 1 / 3 + 1e-5).all()
    assert torch.equal(net.continuous(coarse), plain.angle)
    coarse.angle.sum().backward()
    assert torch.allclose(net.head.bias.grad, torch.tensor([8.0, 8.0, 0.0, 0.0]))


def test_the_head_keeps_its_precision_under_autocast() -> None:
    net = AngleNet((32, 24), 2).eval()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = net(images(2, (32, 24)))
    assert prediction.angle.dtype == prediction.log_std.dtype == torch.float32


def test_onnx_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    net = AngleNet((40, 32), 3, backbone="residual-small" + COORDINATES, codes=6).eval()
    path = str(tmp_path / "net.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (images(1, (40, 32)),),
            path,
            input_names=["image"],
            output_names=["angle", "log_std", "features"],
            dynamic_axes={"image": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixels = images(3, (40, 32), seed=5)
    for ours, theirs in zip(net(pixels), session.run(None, {"image": pixels.numpy()}), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-4)
