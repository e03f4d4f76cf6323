"""The estimator node with an encoder that takes `INFERENCE_S` for each frame, for the overload test.

The rest of that time is slept, so that like an inference it leaves Python's lock alone, but takes no core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from ropes_ros.bench.estimator.figures import INFERENCE_S
from ropes_ros.encoder import Encoder
from ropes_ros.nodes import estimator
from ropes_ros.nodes.common import run


class Estimator(estimator.Estimator):
    """The node as it is; a class of this module, by which it is found and activated under ROS 2."""


def slowed(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that takes `INFERENCE_S` where it would take less."""

    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        end = time.monotonic() + INFERENCE_S
        result = method(*arguments, **named)
        time.sleep(max(0.0, end - time.monotonic()))
        return result

    return call


def main(args: list[str] | None = None) -> int:
    """Entry point of the node."""
    return run(Estimator, args)


Encoder.run = slowed(Encoder.run)  # type: ignore[method-assign]

if __name__ == "__main__":
    raise SystemExit(main())
