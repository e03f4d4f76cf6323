"""Mix'n'match: a precision for each layer, from one set of nested weights, under a budget of size or of loss.

From all layers with 8 bits, the layer and the step down that cost the least held-out loss for each byte saved are
taken, again and again, until the budget is met; what a large step left of it goes to the layers that gain most by it
(Nair et al., Matryoshka Quantization, arXiv 2502.06786, mix precisions over layers by a rule, "Layerwise Mix'n'Match").
The loss is that of `qat.Lesson.judge`, which knows no angle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from ropes_ros.errors import TrainingError
from ropes_ros.learning.quantize import Precision, QuantisedNet, size_share
from ropes_ros.nested import WIDTHS


class Judge(Protocol):
    """Tells a network's loss on held-out frames in a precision."""

    def __call__(self, net: QuantisedNet, precision: Precision, /) -> float: ...


class Mixed(NamedTuple):
    """A choice of precision.

    Attributes:
        plan: Bits of every layer.
        size: Share of the weights' bytes in 32 bits.
        loss: Held-out loss.
    """

    plan: dict[str, int]
    size: float
    loss: float


def mix(net: QuantisedNet, judge: Judge, *, size: float | None = None, loss: float | None = None) -> Mixed:
    """Choose bits layer by layer.

    Args:
        net: A network that was fine-tuned for several precisions.
        judge: Of its loss.
        size: Share of the weights' bytes in 32 bits that is allowed: the least loss within it, as far as steps one by
            one find it.
        loss: Held-out loss that is allowed above that with 8 bits, nats: the least size within it. One of the two is
            given.

    Raises:
        TrainingError: Neither or both budgets are given, or the size cannot be reached.
    """
    if (size is None) == (loss is None):
        raise TrainingError("a mix of precisions needs one budget, of size or of loss")
    order = sorted(WIDTHS, reverse=True)
    free = net.free()
    plan = {**net.plan(order[-1]), **dict.fromkeys(free, order[0])}
    now = Mixed(plan, size_share(net, plan), judge(net, plan))
    allowed = None if loss is None else now.loss + loss
    while size is None or now.size > size:
        steps = [step for step in _steps(net, judge, now, free, order) if step.size < now.size]
        if allowed is not None:
            steps = [step for step in steps if step.loss <= allowed]
        if not steps:
            break
        now = min(steps, key=lambda step: (step.loss - now.loss) / (now.size - step.size))
    if size is not None and now.size > size:
        raise TrainingError(
            f"weights of {size:.3f} of those in 32 bits were asked for; with the fewest bits they take {now.size:.3f}"
        )
    while size is not None:
        steps = [step for step in _steps(net, judge, now, free, order[::-1]) if step.size <= size]
        best = min(steps, key=lambda step: step.loss, default=now)
        if best.loss >= now.loss:
            break
        now = best
    return now


def _steps(net: QuantisedNet, judge: Judge, now: Mixed, free: Sequence[str], order: Sequence[int]) -> Iterator[Mixed]:
    """All choices in which one layer has another number of bits, of those that follow its own in an order."""
    for name in free:
        for bits in order[order.index(now.plan[name]) + 1 :]:
            plan = {**now.plan, name: bits}
            yield Mixed(plan, size_share(net, plan), judge(net, plan))
