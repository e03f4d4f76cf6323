"""Learning from the command itself: the narrow end of the spectrum of supervision.

A regime says of a frame that u follows a broad density. The command says that u is near one number, at a time that
clocks and controllers shift. Here a frame's density is

    p(u | command) = (1 - e) N(u; c(t - lag), width^2) + e / 2,

with c the commanded position, a lag and a width per joint, and a share e of commands that were never carried out (u
is then anywhere in the box). The network says u ~ N(angle, std^2), so the likelihood of the command is

    (1 - e) N(c(t - lag); angle, std^2 + width^2) + e / 2.

Lag, width and share are learned with the network. The width starts as broad as a level and narrows to what the robot
and the clocks allow. Only std^2 + width^2 is identified on any one frame: what is common to all frames may be in
either, so a std from here wants calibration as any other.

The mixture with a uniform is the usual robust likelihood (Jaynes, Probability Theory: The Logic of Science, 2003,
sec. 21.4, who calls it the two-model model).

Commands are not measured poses, but on a robot that follows them well they are close to them: name this supervision
wherever its figures are told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.commands import CommandTrack
from ropes_ros.dataset import FrameSet
from ropes_ros.errors import TrainingError
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.tasks import Batch, Task
from ropes_ros.units import NANOSECONDS

MAX_LAG_S = 1.0
LARGEST_SHARE = 0.3
"""More commands than this cannot be told from a robot that does not listen."""
FIRST_SHARE = 0.02
_SCAN_FRAMES = 3000
_SCAN_STEP_S = 0.02
_THUMBNAIL = (16, 12)
_COMPONENTS = 20
_WIDTH_RANGE = (-6.0, 0.0)
_PACE = 5.0
"""How much faster width and share move than Adam moves a weight: a run is some hundred steps of 0.001."""
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_UNIFORM = -math.log(2.0)


class CommandReport(NamedTuple):
    """What was learned of the way from command to image.

    Attributes:
        lag_s: How much later an image shows a command than their stamps say, seconds, float64 [J].
        width: Standard deviation of the position about the command that all frames share, half ranges, float64 [J].
        unexecuted: Share of commands that the image contradicts.
    """

    lag_s: NDArray[np.float64]
    width: NDArray[np.float64]
    unexecuted: float


class CommandTask(Task):
    """Negative log likelihood of the commanded positions; see the module.

    Args:
        track: What was commanded.
        stamps_ns: int64 [N], stamps of the frames that `Batch.index` counts.
        lag_s: Where the lag starts, seconds.
        max_lag_s: Bound of the lag either way; 0 fixes it at none.
        width: Where the width starts, half ranges.
        noise: float [N, J], half ranges, added to each frame's command; None for none.
    """

    knots_s: Tensor
    knots_u: Tensor
    stamps_s: Tensor
    noise: Tensor

    def __init__(
        self,
        track: CommandTrack,
        stamps_ns: NDArray[np.int64],
        *,
        lag_s: float = 0.0,
        max_lag_s: float = MAX_LAG_S,
        width: float = 0.15,
        noise: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__()
        self.supervision = f"the commanded positions of {track.source}, frame by frame; no measured pose"
        joints = track.u.shape[1]
        start = int(track.times_ns[0])
        blank = np.zeros((len(stamps_ns), joints)) if noise is None else noise
        for name, values in (
            ("knots_s", torch.from_numpy((track.times_ns - start) / NANOSECONDS)),
            ("knots_u", torch.from_numpy(track.u)),
            ("stamps_s", torch.from_numpy((stamps_ns - start) / NANOSECONDS)),
            ("noise", torch.from_numpy(blank)),
        ):
            self.register_buffer(name, values, persistent=False)
        self._max_lag_s = max_lag_s
        share = lag_s / max_lag_s if max_lag_s > 0.0 else 0.0
        self.lag_raw = nn.Parameter(torch.full((joints,), math.atanh(min(max(share, -0.95), 0.95))))
        self.lag_raw.requires_grad_(max_lag_s > 0.0)
        self.width_raw = nn.Parameter(torch.full((joints,), math.log(width) / _PACE))
        self.share_raw = nn.Parameter(torch.tensor(math.log(FIRST_SHARE / (LARGEST_SHARE - FIRST_SHARE)) / _PACE))

    @property
    def lag_s(self) -> Tensor:
        """The lag per joint, seconds, float [J]."""
        return self._max_lag_s * torch.tanh(self.lag_raw)

    @property
    def unexecuted(self) -> Tensor:
        """The share of commands that were not carried out, a scalar."""
        return LARGEST_SHARE * torch.sigmoid(_PACE * self.share_raw)

    @property
    def log_width(self) -> Tensor:
        """The logarithm of the width per joint, float [J]."""
        return (_PACE * self.width_raw).clamp(*_WIDTH_RANGE)

    def report(self) -> CommandReport:
        """What has been learned so far."""
        width = self.log_width.detach().exp()
        return CommandReport(
            self.lag_s.detach().cpu().double().numpy(), width.cpu().double().numpy(), self.unexecuted.item()
        )

    def commanded(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The command behind each frame, linear between the track's samples and so differentiable in the lag.

        Args:
            index: int64 [N], positions in the frame set.

        Returns:
            float [N, J] in half ranges, and bool [N, J]: whether anything had been commanded by then.
        """
        time = self.stamps_s[index][:, None] - self.lag_s.double()
        after = torch.searchsorted(self.knots_s, time.detach()).clamp(1, max(1, len(self.knots_s) - 1))
        after = after.clamp(max=len(self.knots_s) - 1)
        before = (after - 1).clamp(min=0)
        span = (self.knots_s[after] - self.knots_s[before]).clamp(min=1e-9)
        share = ((time - self.knots_s[before]) / span).clamp(0.0, 1.0)
        left, right = self.knots_u.gather(0, before), self.knots_u.gather(0, after)
        return (left + share * (right - left) + self.noise[index]).float(), time.detach() >= self.knots_s[0]

    def log_likelihood(self, prediction: Prediction, index: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of every frame's command, float [N, J] in nats per half range, and where there is one, bool."""
        command, known = self.commanded(index)
        variance = (2.0 * prediction.log_std).exp() + (2.0 * self.log_width).exp()
        core = -0.5 * ((command - prediction.angle).square() / variance + variance.log()) - _HALF_LOG_2PI
        share = self.unexecuted
        return torch.logaddexp((1.0 - share).log() + core, share.log() + _LOG_UNIFORM), known

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """Mean negative log likelihood over the frames and joints with a command, and the prediction."""
        prediction: Prediction = net(batch.images)
        value, known = self.log_likelihood(prediction, batch.index)
        return -torch.where(known, value, torch.zeros_like(value)).sum() / known.sum().clamp(min=1), prediction


@dataclass
class CommandSupervision:
    """Makes the task for `train(..., task=)` and keeps it, so that what it learned can be told.

    Attributes:
        track: What was commanded.
        max_lag_s: Bound of the lag either way; 0 where frames are no recording over time, but poses one by one.
        blur: Standard deviation of a fixed noise, half ranges, put on each frame's command before anything learns
            from it. It makes the supervision as coarse as one wants: at the levels' label noise it is about as
            strong as the regimes.
        seed: Of that noise.
        task: The task, once training has begun.
    """

    track: CommandTrack
    max_lag_s: float = MAX_LAG_S
    blur: float = 0.0
    seed: int = 0
    task: CommandTask | None = None

    def __call__(self, frames: FrameSet, shares: NDArray[np.float64], net: AngleNet) -> CommandTask:
        """The task for some frames; the shares of levels are not used.

        Raises:
            TrainingError: The track is of another number of joints, or begins after the last frame.
        """
        joints = self.track.u.shape[1]
        if joints != len(frames.joint_names):
            raise TrainingError(
                f"commands are of {joints} joints, the frames of {len(frames.joint_names)}: name the robot's preset"
            )
        if frames.stamps_ns[-1] < self.track.times_ns[0]:
            raise TrainingError("all frames are older than the first command: were camera and commander on one clock?")
        lag = scan_lag(self.track, frames, self.max_lag_s) if self.max_lag_s > 0.0 else 0.0
        noise = None
        if self.blur > 0.0:
            noise = np.random.default_rng(self.seed).normal(0.0, self.blur, (len(frames), joints))
        self.task = CommandTask(
            self.track,
            frames.stamps_ns,
            lag_s=lag,
            max_lag_s=self.max_lag_s,
            width=frames.level_label_noise,
            noise=noise,
        )
        return self.task

    def report(self) -> CommandReport:
        """What training learned of lag, width and commands not carried out.

        Raises:
            TrainingError: Training has not begun.
        """
        if self.task is None:
            raise TrainingError("the lag is learned in training: train first")
        return self.task.report()


def commands_task(
    track: CommandTrack, *, max_lag_s: float = MAX_LAG_S, blur: float = 0.0, seed: int = 0
) -> CommandSupervision:
    """Supervision by commands, to be given to `train(..., task=)`; see `CommandSupervision`."""
    return CommandSupervision(track, max_lag_s, blur, seed)


def scan_lag(track: CommandTrack, frames: FrameSet, max_lag_s: float = MAX_LAG_S) -> float:
    """The lag at which small images tell the commands best, by least squares, for a start.

    Up to 3,000 frames become thumbnails, their principal components and the products of these; for every lag on a
    grid of 20 ms the commands are regressed on them, and the lag with the least sum over joints of the logarithm of
    the residual variance is taken.

    Args:
        track: What was commanded.
        frames: The frames.
        max_lag_s: Bound of the search either way, seconds.

    Returns:
        Seconds by which images are later than the commands that they show.

    Raises:
        TrainingError: Too few frames lie within the commands.
    """
    inside = np.flatnonzero(frames.stamps_ns >= track.times_ns[0] + round(max_lag_s * NANOSECONDS))
    features = _COMPONENTS * (_COMPONENTS + 3) // 2 + 1
    if len(inside) < 2 * features:
        raise TrainingError(
            f"{len(inside)} frames lie within the commands, {2 * features} are needed to find the lag: record longer"
        )
    chosen = inside[np.linspace(0, len(inside) - 1, min(_SCAN_FRAMES, len(inside))).astype(np.int64)]
    images = frames.images[chosen]
    thumbnails = np.stack([cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA) for image in images])
    basis = np.linalg.qr(_products(thumbnails.reshape(len(chosen), -1).astype(np.float64)))[0]
    steps = int(max_lag_s / _SCAN_STEP_S)
    lags = _SCAN_STEP_S * np.arange(-steps, steps + 1)
    costs = []
    for lag in lags:
        u = track.at(frames.stamps_ns[chosen] - round(lag * NANOSECONDS))
        left = u - basis @ (basis.T @ u)
        costs.append(np.log(np.maximum((left**2).mean(axis=0), 1e-12)).sum())
    return float(lags[int(np.argmin(costs))])


def _products(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """A constant, the leading principal components of rows, and their squares and products."""
    centred = pixels - pixels.mean(axis=0)
    scores = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -_COMPONENTS:]
    scores /= np.maximum(scores.std(axis=0), 1e-9)
    rows, columns = np.triu_indices(scores.shape[1])
    return np.concatenate([np.ones((len(pixels), 1)), scores, scores[:, rows] * scores[:, columns]], axis=1)
