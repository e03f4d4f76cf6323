"""The estimator without its topics: what is published of which frame, and what state that is."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ropes_ros.encoder import Estimate
from ropes_ros.errors import RopesError
from ropes_ros.estimation import OUTCOMES, RECENT_S, Estimation, Output, Settings, State
from ropes_ros.robot import load_robot
from ropes_ros.units import NANOSECONDS

ROBOT = load_robot("arm6")
FRAME_NS = 33_000_000
START_NS = 1_700_000_000 * NANOSECONDS


class Model:
    """A model that says what it is told to."""

    def __init__(self) -> None:
        self.position = ROBOT.home.copy()
        self.std = np.full(6, 0.05)
        self.novelty = 0.5
        self.runs = 0

    def run(self, images: NDArray[np.uint8]) -> Estimate:
        self.runs += 1
        return Estimate(
            self.position[None].astype(np.float32), self.std[None].astype(np.float32), np.float32([self.novelty])
        )


class Play:
    """An estimation, its model, and the time, which passes only here."""

    def __init__(self, **settings: Any) -> None:
        self.model = Model()
        self.seconds = 100.0
        self.offset_ns = START_NS
        self.estimation = Estimation(
            ROBOT,
            self.model,  # type: ignore[arg-type]
            Settings(**settings),
            steady=lambda: self.seconds,
        )
        self.frames = 0

    @property
    def now_ns(self) -> int:
        return self.offset_ns + round(self.seconds * NANOSECONDS)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    def show(self, stamp_ns: int | None = None, *, data: bytes | None = None, broken: str = "") -> Output | None:
        """A frame a period later, by default with its stamp and a picture of its own."""
        self.wait(FRAME_NS / NANOSECONDS)
        self.frames += 1

        def read() -> NDArray[np.uint8]:
            if broken:
                raise RopesError(broken)
            return np.zeros((2, 2, 3), dtype=np.uint8)

        self.estimation.heard(False)
        return self.estimation.frame(
            self.now_ns if stamp_ns is None else stamp_ns,
            self.now_ns,
            self.frames.to_bytes(8, "big") * 500 if data is None else data,
            read,
        )

    def run(self, count: int) -> list[Output]:
        outputs = [self.show() for _ in range(count)]
        assert all(outputs)
        return outputs  # type: ignore[return-value]

    @property
    def state(self) -> State:
        return self.estimation.state()[0]

    @property
    def reason(self) -> str:
        return self.estimation.state()[1]

    def counted(self) -> dict[str, int]:
        """The counters that are not 0; all frames must be in one of them."""
        counters = asdict(self.estimation.counters)
        assert sum(counters[name] for name in OUTCOMES) == counters["received"] == self.frames
        return {name: count for name, count in counters.items() if count and name != "received"}


def test_frames_in_order_are_published_with_their_stamps() -> None:
    play = Play()
    outputs = play.run(30)
    assert [output.tracked.stamp_ns for output in outputs] == [
        play.now_ns - FRAME_NS * back for back in reversed(range(30))
    ]
    np.testing.assert_allclose(outputs[-1].tracked.position, ROBOT.home, atol=1e-6)
    assert play.state is State.OK and play.counted() == {"published": 30}


def test_novelty_has_hysteresis_and_silences_without_forgetting() -> None:
    play = Play(novelty_limit=1.5, novelty_release=1.2)
    play.run(30)
    known = play.estimation._tracker.state.position_std
    published = []
    for novelty in (1.4, 1.6, 1.4, 1.3, 1.1, 1.4):
        play.model.novelty = novelty
        published.append(play.show() is not None)
        assert play.state is (State.OK if published[-1] else State.NOVEL)
    assert published == [True, False, False, False, True, True]
    assert (play.estimation._tracker.state.position_std < 2.0 * known).all()
    play.model.novelty = float("nan")
    assert play.show() is None and play.state is State.NOVEL


def test_a_lasting_novelty_stays_novel_until_frames_stop() -> None:
    play = Play(stale_after=0.5)
    play.run(3)
    play.model.novelty = 9.0
    for _ in range(60):
        assert play.show() is None
    assert play.state is State.NOVEL and "unlike the training frames" in play.reason
    play.wait(0.6)
    assert play.state is State.STALE and play.reason == "no frame on the camera's topic for 0.6 s"


def test_a_frame_that_is_refused_after_a_novel_one_is_the_reason() -> None:
    """Whoever reads the state would look for what is new in the picture, where the camera sends no pictures."""
    play = Play()
    play.run(20)
    play.model.novelty = 9.0
    assert play.show() is None and play.state is State.NOVEL
    for _ in range(20):
        assert play.show(broken="the camera sends rubbish") is None
    assert play.state is State.STALE and "the camera sends rubbish" in play.reason
    play.model.novelty = 1.4  # known would be 1.2: it is still novel
    assert play.show() is None and play.state is State.NOVEL


def test_nothing_is_stale_before_its_time_and_recovery_is_at_once() -> None:
    play = Play(stale_after=0.5)
    assert play.state is State.OK
    play.wait(0.51)
    assert play.state is State.STALE
    play.run(1)
    assert play.state is State.OK
    play.wait(0.49)
    assert play.state is State.OK
    play.wait(0.02)
    assert play.state is State.STALE


def test_refused_frames_degrade_then_are_stale_with_the_reason() -> None:
    play = Play(stale_after=0.5)
    play.run(5)
    assert play.show(broken="camera: of another size") is None
    assert play.state is State.DEGRADED and play.reason == "REJECTED: camera: of another size"
    for _ in range(20):
        play.show(broken="camera: of another size")
    assert play.state is State.STALE and "for 0.7 s; REJECTED: camera: of another size" in play.reason
    play.run(1)
    assert play.state is State.DEGRADED, "it has just been so"
    play.run(round(RECENT_S / 0.033) + 1)
    assert play.state is State.OK
    assert play.counted() == {"published": 68, "rejected": 21}


def test_an_encoder_that_fails_is_counted_and_raised() -> None:
    play = Play()
    play.model.run = lambda images: 1 / 0  # type: ignore[assignment, method-assign]
    with pytest.raises(ZeroDivisionError):
        play.show()
    assert play.counted() == {"rejected": 1}
    assert play.reason == "REJECTED: the estimate failed: ZeroDivisionError: division by zero"


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("field", ["position", "std"])
def test_estimates_that_are_no_numbers_are_never_published(field: str, value: float) -> None:
    play = Play()
    before = play.run(3)[-1].tracked
    getattr(play.model, field)[2] = value if value or field == "std" else -np.inf
    assert play.show() is None
    assert play.counted() == {"published": 3, "rejected": 1} and "not a number" in play.reason
    getattr(play.model, field)[2] = getattr(Model(), field)[2]
    after = play.run(1)[0].tracked
    assert np.isfinite(after.covariance).all()
    np.testing.assert_allclose(after.position, before.position, atol=1e-6)


def test_a_picture_that_repeats_is_no_new_picture() -> None:
    play = Play(stale_after=0.5)
    play.run(5)
    stuck = b"picture" * 300
    assert play.show(data=stuck) is not None
    assert play.show(data=stuck) is None
    assert play.state is State.DEGRADED and play.reason.startswith("FROZEN")
    assert play.show(data=stuck[:-1] + b"x") is not None, "one byte differs"
    for _ in range(20):
        play.show(data=stuck)
    assert play.state is State.STALE and "FROZEN" in play.reason
    assert play.counted() == {"published": 8, "identical": 20}
    assert play.model.runs == 8, "no time is spent on it"
    allowed = Play(drop_identical=False)
    assert allowed.show(data=stuck) and allowed.show(data=stuck)


@pytest.mark.parametrize("late_frames", ["drop", "replay"])
def test_frames_out_of_order(late_frames: str) -> None:
    """A late frame changes the filter as if it had come in order where that is wanted, and is never published."""
    play, ordered = Play(late_frames=late_frames), Play()
    rng = np.random.default_rng(0)
    measured = ROBOT.home + 0.05 * rng.standard_normal((6, 6))
    stamps = [START_NS + 10**11 + FRAME_NS * number for number in range(6)]
    for number in (0, 1, 3, 2, 4, 5):
        play.model.position = measured[number]
        output = play.show(stamps[number])
        assert (output is None) is (number == 2)
    for number in range(6) if late_frames == "replay" else (0, 1, 3, 4, 5):
        ordered.model.position = measured[number]
        ordered.show(stamps[number])
    same = play.estimation._tracker.state, ordered.estimation._tracker.state
    np.testing.assert_allclose(same[0].position, same[1].position, atol=1e-12)
    np.testing.assert_allclose(same[0].covariance, same[1].covariance, atol=1e-12)
    if late_frames == "replay":
        assert play.counted() == {"published": 5, "replayed": 1} and play.state is State.OK
    else:
        assert play.counted() == {"published": 5, "out_of_order": 1} and play.state is State.DEGRADED


def test_the_same_stamp_again_is_dropped_in_either_way() -> None:
    for late_frames in ("drop", "replay"):
        play = Play(late_frames=late_frames)
        play.run(2)
        assert play.show(play.estimation._newest_ns) is None
        assert play.counted() == {"published": 2, "out_of_order": 1}


def test_time_that_jumps_back_starts_anew() -> None:
    play = Play()
    play.run(10)
    play.offset_ns -= 60 * NANOSECONDS
    play.model.position = ROBOT.home + 0.3
    (output,) = play.run(1)
    np.testing.assert_allclose(output.tracked.position, play.model.position, atol=1e-6)
    assert not output.tracked.velocity.any()
    assert play.state is State.DEGRADED and play.reason.startswith("JUMPED: stamps jumped by -60.0 s")
    assert play.counted() == {"published": 11, "clock_jumps": 1}


def test_time_that_jumps_forward_starts_anew_and_a_pause_is_no_jump() -> None:
    play = Play()
    play.run(10)
    play.wait(30.0)
    play.run(1)
    assert play.counted() == {"published": 11}
    play.offset_ns += 60 * NANOSECONDS
    play.run(1)
    assert play.counted() == {"published": 12, "clock_jumps": 1} and "+60.0 s" in play.reason


def test_stamps_of_the_future_are_dropped() -> None:
    play = Play(future_tolerance=0.5)
    play.run(3)
    assert play.show(play.now_ns + NANOSECONDS) is None
    assert play.counted() == {"published": 3, "from_future": 1} and "ahead of this node's clock" in play.reason
    play.run(1)
    assert play.show(play.now_ns + NANOSECONDS // 4) is not None


def test_old_images_are_published_and_said() -> None:
    play = Play(old_after=1.0)
    play.offset_ns += 2 * NANOSECONDS
    for number in range(3):
        assert play.show(play.now_ns - 2 * NANOSECONDS + number) is not None
    assert play.state is State.DEGRADED and play.reason.startswith("OLD: stamps lie 2.0 s behind")


def test_predictions_bridge_a_gap_widen_and_end() -> None:
    play = Play(predict_for=0.3)
    play.model.position = ROBOT.home + 0.1
    last = play.run(30)[-1].tracked
    assert play.estimation.predict(play.now_ns) is None, "the next frame is not due"
    assert play.estimation.patience_s == pytest.approx(0.033)
    spreads = [last.position_std]
    stamps = [last.stamp_ns]
    for _ in range(20):
        play.wait(0.033)
        output = play.estimation.predict(play.now_ns)
        if output is not None:
            assert output.estimate is None
            spreads.append(output.tracked.position_std)
            stamps.append(output.tracked.stamp_ns)
    assert len(stamps) == 9 and stamps[-1] <= last.stamp_ns + 0.3 * NANOSECONDS
    assert (np.diff(stamps) > 0).all() and (np.diff(spreads, axis=0) > 0.0).all()
    assert play.counted() == {"published": 30, "predicted": 8}
    (after,) = play.run(1)
    assert after.tracked.stamp_ns > stamps[-1]


def test_a_frame_that_a_prediction_has_overtaken_is_used_and_not_published() -> None:
    play = Play(predict_for=0.3)
    play.run(10)
    late_ns = play.now_ns + FRAME_NS
    play.wait(0.2)
    predicted = play.estimation.predict(play.now_ns)
    assert predicted is not None and predicted.tracked.stamp_ns > late_ns
    assert play.show(late_ns) is None
    assert play.counted() == {"published": 10, "predicted": 1, "replayed": 1}
    assert play.estimation._tracker.newest_ns == late_ns


def test_nothing_is_predicted_unless_asked_for_nor_when_novel() -> None:
    play = Play()
    play.run(10)
    play.wait(0.1)
    assert play.estimation.predict(play.now_ns) is None and play.estimation.patience_s is None
    play = Play(predict_for=1.0)
    play.run(10)
    play.model.novelty = 9.0
    play.show()
    play.wait(0.1)
    assert play.estimation.predict(play.now_ns) is None


def test_an_outlier_is_counted_and_named() -> None:
    play = Play()
    before = play.run(60)[-1].tracked
    play.model.position = ROBOT.home.copy()
    play.model.position[1] += 1.0
    output = play.show()
    assert output is not None
    np.testing.assert_allclose(output.tracked.position, before.position, atol=1e-3)
    assert play.counted() == {"published": 61, "outliers": 1}
    assert play.state is State.DEGRADED and "joint2 jumped" in play.reason


def test_another_model_takes_over_with_a_fresh_filter() -> None:
    play = Play()
    play.run(30)
    second = Model()
    second.position = ROBOT.home + 0.4
    play.estimation.encoder = second  # type: ignore[assignment]
    (output,) = play.run(1)
    np.testing.assert_allclose(output.tracked.position, second.position, atol=1e-6)
    assert play.counted() == {"published": 31}


def test_settings_may_change_at_any_time() -> None:
    play = Play()
    play.run(1)
    play.model.novelty = 1.3
    play.estimation.settings = replace(play.estimation.settings, novelty_limit=1.1)
    assert play.show() is None and play.state is State.NOVEL
    play.estimation.settings = replace(play.estimation.settings, novelty_limit=2.0, novelty_release=1.9)
    assert play.show() is not None


def test_frames_that_cannot_be_used_do_not_prolong_predictions() -> None:
    play = Play(predict_for=1.0)
    play.run(30)
    last_ns = play.now_ns
    predicted = []
    for _ in range(10):
        play.show(broken="images are 8x8")
        for _ in range(28):
            play.wait(FRAME_NS / NANOSECONDS)
            output = play.estimation.predict(play.now_ns)
            if output is not None:
                predicted.append(output.tracked.stamp_ns - last_ns)
    assert predicted and max(predicted) <= NANOSECONDS


def test_a_pause_of_frames_that_cannot_be_used_is_no_jump_of_time() -> None:
    play = Play()
    play.run(30)
    stuck_ns = play.now_ns
    for _ in range(60):
        assert play.show(stuck_ns) is None
    play.run(3)
    assert play.counted() == {"published": 33, "out_of_order": 60}


def test_a_model_that_does_not_come_to_an_end_is_stale() -> None:
    """The worker hangs in a frame; others come and take each other's place."""
    play = Play(stale_after=0.5)
    play.show(broken="long past")
    play.run(100)
    for _ in range(20):
        play.wait(FRAME_NS / NANOSECONDS)
        play.estimation.heard(True)
    assert play.state is State.STALE
    assert "at work on one frame" in play.reason and "long past" not in play.reason
    play.frames += 20  # all of them were skipped
    play.show()
    assert play.state is State.OK
    play.wait(0.4)
    play.estimation.heard(False)
    play.wait(0.2)
    assert play.state is State.OK, "the camera is slow, and a frame is at work no longer than it may"


def test_the_pictures_size_is_that_of_the_model_that_looks_at_them() -> None:
    """A model may be exchanged between the beginning of a frame and its reading."""
    from types import SimpleNamespace

    play = Play()
    play.model.info = SimpleNamespace(camera_size=(64, 48))  # type: ignore[attr-defined]
    other = Model()
    other.info = SimpleNamespace(camera_size=(32, 24))  # type: ignore[attr-defined]
    sizes = []

    def read() -> NDArray[np.uint8]:
        play.estimation.encoder = other  # type: ignore[assignment]
        sizes.append(play.estimation.camera_size)
        return np.zeros((2, 2, 3), dtype=np.uint8)

    for number in range(2):
        play.wait(FRAME_NS / NANOSECONDS)
        play.estimation.heard(False)
        play.estimation.frame(play.now_ns, play.now_ns, bytes([number]), read)
    assert sizes == [(64, 48), (32, 24)]
