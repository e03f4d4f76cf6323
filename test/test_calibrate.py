"""Calibration from levels alone: the map where it pays, the std where levels can tell it, caution where they cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from oracle import GRID, Case, Oracle, case, with_angles

from ropes_ros.learning.calibrate import (
    SCALES,
    Calibrated,
    Calibration,
    Familiar,
    calibrate,
    fit_scale,
    truncated_moments,
)


def alike(error: float, seed: int, *, length: int = 30, joints: int = 1) -> Case:
    """150 segments whose frames all show one angle with one error."""
    return case(segments=150, length=length, joints=joints, error=error, seed=seed, alike=True)


def stated_scale(made: Case, log_std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value [J] and interval [J, 2] of the scale, from what an oracle reads in all frames."""
    code = made.frames.images[:, 0, : made.angle.shape[1]].astype(np.float64)
    angle = (code[:, :, 0] * 256.0 + code[:, :, 1]) / 21845.0 - 1.5
    width = np.broadcast_to(log_std, angle.shape).copy()
    found = fit_scale(made.objective, angle, width, made.frames.labels, made.frames.segments)
    return found.value, found.interval


@pytest.mark.parametrize("stated", [0.08, 0.2, 0.4])
def test_errors_as_wide_as_the_levels_are_measured(stated: float) -> None:
    found = [stated * stated_scale(alike(0.2, seed), np.log([stated]))[0][0] for seed in range(3)]
    assert np.mean(found) == pytest.approx(0.2, rel=0.3)


def test_errors_far_below_the_levels_are_not_understated() -> None:
    """The levels can hardly tell 0.02 from 0.005; the answer must not be the smallest that they allow."""
    found = np.array([0.02 * stated_scale(alike(0.02, seed), np.log([0.02]))[0][0] for seed in range(5)])
    assert (found > 0.015).all()
    assert (found < 4.0 * 0.02).all()


def test_frames_that_are_alike_count_once() -> None:
    """Thirty copies of each frame tell no more than one."""
    copies, once = alike(0.1, 0), alike(0.1, 0, length=1)
    several = stated_scale(copies, np.log([0.1]))
    single = stated_scale(once, np.log([0.1]))
    np.testing.assert_allclose(several[0], single[0], rtol=0.15)
    np.testing.assert_allclose(several[1], single[1], rtol=0.2)


def test_many_independent_frames_narrow_the_interval() -> None:
    few, many = (stated_scale(case(segments=n, length=1, joints=1, error=0.1), np.log([0.1]))[1] for n in (200, 8000))
    assert np.log(many[0, 1] / many[0, 0]) < 0.5 * np.log(few[0, 1] / few[0, 0])
    assert many[0, 0] < 1.0 < many[0, 1]


def test_joints_lean_on_those_that_the_levels_tell() -> None:
    """All joints state twice their error; on joint 1, with an error of 0.02, the levels say nothing of it by itself."""
    made = case(segments=1500, length=1, joints=4, error=1.0, seed=1)
    error = np.array([0.02, 0.15, 0.15, 0.2])
    rng = np.random.default_rng(5)
    angle = made.angle + error * rng.standard_normal(made.angle.shape)
    made = replace(made, frames=replace(made.frames, images=with_angles(made.frames.images, angle)))
    value, interval = stated_scale(made, np.log(2.0 * error))
    assert value[1:] == pytest.approx(0.5, rel=0.2)
    assert value[0] == pytest.approx(0.5, rel=0.5)
    assert interval[0, 0] < 0.5 < interval[0, 1]
    assert np.log(interval[0, 1] / interval[0, 0]) > 2.0 * np.log(interval[3, 1] / interval[3, 0])


def read(made: Case, angle: np.ndarray, std: float = 0.05) -> Calibration:
    """The calibration of the oracle on the recording, with pictures that say given angles."""
    frames = replace(made.frames, images=with_angles(made.frames.images, angle))
    return calibrate(Oracle(made.angle.shape[1], std), frames, made.split, made.objective)


@pytest.fixture(scope="module")
def independent() -> Case:
    return case(segments=6000, length=1)


def test_a_stretched_angle_is_put_right(independent: Case) -> None:
    rng = np.random.default_rng(0)
    honest = independent.angle + 0.03 * rng.standard_normal(independent.angle.shape)
    stretched = honest * np.array([1.0, 0.75]) + np.array([0.0, 0.1])
    found = read(independent, stretched)
    assert found.map_accepted[1]
    assert found.map_gain[1, 0] > 0.01
    inside = np.abs(honest[:, 1]) < 0.9
    with torch.no_grad():
        estimate, _ = Calibrated(found)(torch.from_numpy(stretched), torch.full(stretched.shape, float(np.log(0.05))))
    before = np.abs(stretched - independent.angle)[inside, 1].mean()
    after = np.abs(estimate.numpy() - independent.angle)[inside, 1].mean()
    assert after < 0.4 * before


def test_a_map_that_does_not_pay_is_not_taken(independent: Case) -> None:
    """Angles pulled to the middle where the image is poor: matching quantiles would push them out again."""
    rng = np.random.default_rng(1)
    poor = rng.random(independent.angle.shape) < 0.3
    shrunk = np.where(poor, 0.0, independent.angle)
    found = read(independent, shrunk, std=0.3)
    assert not found.map_accepted.any()
    np.testing.assert_array_equal(found.mapped, found.knots)


def test_few_segments_fit_no_map() -> None:
    made = case(segments=120, length=10)
    found = read(made, 0.7 * made.angle)
    assert np.isnan(found.map_gain).all()
    assert not found.map_accepted.any()


def test_moments_are_those_of_the_cut_normal() -> None:
    """Against sums over a fine grid, at the middle, near an end, and beyond it (where the end is taken)."""
    location, width = np.array([[0.0, 0.93, -1.4]]), np.array([[0.3, 0.1, 0.2]])
    mean, std = truncated_moments(torch.from_numpy(location), torch.from_numpy(np.log(width)))
    fine = np.linspace(-1.0, 1.0, 20001)
    for joint in range(3):
        weight = np.exp(-0.5 * ((fine - location[0, joint].clip(-1, 1)) / width[0, joint]) ** 2)
        expected = np.average(fine, weights=weight)
        assert mean[0, joint].item() == pytest.approx(expected, abs=1e-3)
        assert std[0, joint].item() == pytest.approx(
            np.sqrt(np.average((fine - expected) ** 2, weights=weight)), rel=1e-2
        )


def test_stated_std_covers_the_error(independent: Case) -> None:
    """Errors of 0.1 half ranges stated as 0.2: after calibration 2 std cover 90 to 98 % of them."""
    rng = np.random.default_rng(2)
    shown = independent.angle + 0.1 * rng.standard_normal(independent.angle.shape)
    found = read(independent, shown, std=0.2)
    with torch.no_grad():
        estimate, std = Calibrated(found)(torch.from_numpy(shown), torch.full(shown.shape, float(np.log(0.2))))
    covered = (np.abs(estimate.numpy() - independent.angle) <= 2.0 * std.numpy()).mean(axis=0)
    assert ((covered > 0.90) & (covered < 0.98)).all()


def test_estimates_that_are_no_locations_stay_where_they_are(independent: Case) -> None:
    found = calibrate(Oracle(2), independent.frames, independent.split, independent.objective, truncated=False)
    plain = replace(found, mapped=found.knots)
    angle = torch.tensor([[0.99, -0.2]])
    estimate, std = Calibrated(plain)(angle, torch.full((1, 2), -2.0))
    np.testing.assert_allclose(estimate.detach().numpy(), angle.numpy(), atol=1e-6)
    np.testing.assert_allclose(std.detach().numpy()[0], np.exp(-2.0) * found.std_scale, rtol=1e-5)
    wide = Calibrated(replace(plain, std_scale=np.array([4.0, 4.0])))(angle, torch.full((1, 2), -0.8))[1]
    assert (wide < 3.0**-0.5).all(), "never less sure than one who knows the range alone"


def test_a_joint_without_labels_is_stated_at_home_with_the_spread_of_its_range(independent: Case) -> None:
    labels = independent.split.labels.copy()
    labels[:, 0] = -1
    split = independent.split._replace(labels=labels)
    found = calibrate(Oracle(2), independent.frames, split, independent.objective)
    assert found.identified.tolist() == [False, True]
    assert np.isnan(found.held_out_loss[0]), "nothing is known of it"
    assert found.loss == found.held_out_loss[1] > 0.5, "no mean over what is unknown"
    estimate, std = Calibrated(found)(torch.tensor([[0.7, 0.4]]), torch.full((1, 2), -3.0))
    assert estimate[0, 0].item() == 0.0
    assert std[0, 0].item() == pytest.approx(np.std(GRID), rel=0.01)
    assert estimate[0, 1].item() == pytest.approx(0.4, abs=0.1)


def test_calibration_survives_a_checkpoint(independent: Case, tmp_path: Path) -> None:
    first = read(independent, 0.8 * independent.angle)
    path = tmp_path / "calibration.pt"
    torch.save(first.to_dict(), path)
    again = Calibration.from_dict(torch.load(path, weights_only=True))
    for one, other in ((vars(first), vars(again)), (first.familiar._asdict(), again.familiar._asdict())):
        for name in one.keys() - {"familiar"}:
            np.testing.assert_array_equal(other[name], one[name])
    assert SCALES[0] <= again.std_scale[0] <= SCALES[-1]


def test_distance_is_mahalanobis_where_all_axes_are_kept() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(0.0, 1.0, (4000, 6)) @ rng.normal(0.0, 1.0, (6, 6)) + 3.0
    familiar = Familiar.of(features)
    fresh = rng.normal(0.0, 3.0, (20, 6))
    centred = fresh - features.mean(axis=0)
    exact = np.sqrt(np.einsum("nf,fg,ng->n", centred, np.linalg.inv(np.cov(features.T)), centred))
    np.testing.assert_allclose(familiar.distance(fresh), exact, rtol=0.05)  # up to the ridge


def test_what_lies_off_the_principal_axes_is_distant() -> None:
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(0.0, 1.0, (400, 100)))[0]
    features = rng.normal(0.0, 1.0, (3000, 100)) @ axes.T
    familiar = Familiar.of(features)
    inside, off = features[:50], features[:50] + 0.5 * rng.normal(0.0, 1.0, (50, 400))
    assert familiar.distance(off).min() > 2.0 * familiar.distance(inside).max()
