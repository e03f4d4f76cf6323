"""What the recorder says of a bag in progress in its diagnostics: counts, rates, losses, topics that are silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticStatus

from ropes_ros.bag_queue import QueuedWriter
from ropes_ros.bags import Losses
from ropes_ros.nodes.common import Statement
from ropes_ros.nodes.recorder_sources import Source

SILENT_AFTER_S = 5.0


def losses_of(sources: Mapping[str, Source]) -> dict[str, Losses]:
    """Topic to what of it is missing, where something is."""
    return {topic: source.losses for topic, source in sources.items() if any(source.losses)}


class Progress:
    """A bag in progress, from its beginning.

    Args:
        writer: What writes it.
        sources: What is recorded, by topic.
        warn: Is given a sentence for the log.
    """

    def __init__(self, writer: QueuedWriter, sources: Mapping[str, Source], warn: Callable[[str], object]) -> None:
        self._writer, self._sources, self._warn = writer, sources, warn
        self.started = self._told_at = time.monotonic()
        self._told_bytes = 0

    def statement(self) -> Statement:
        """Counts of the bag, and rates since the last statement; names topics that stay silent, once in the log."""
        now = time.monotonic()
        elapsed, self._told_at = max(1e-3, now - self._told_at), now
        size = self._writer.bytes_written
        rate, self._told_bytes = (size - self._told_bytes) / 1e6 / elapsed, size
        sources = list(self._sources.values())
        losses = losses_of(self._sources)
        cameras = {source.topic for source in sources if source.is_camera}
        lost = sum(each.total for topic, each in losses.items() if topic in cameras)
        others = sum(each.total for each in losses.values()) - lost
        malformed = sum(each.malformed for each in losses.values())
        problems = [*self._silent(now), *_lost(losses, lost, others, malformed)]
        values = {
            "state": "recording",
            "path": self._writer.path,
            "frames": sum(source.count for source in sources if source.is_camera),
            "drops": lost + others,
            "malformed": malformed,
            "bytes": size,
            "MB/s": f"{rate:.2f}",
            "MB waiting": f"{self._writer.waiting_bytes / 1e6:.1f}",
            **{f"messages {source.topic}": source.count for source in sources},
            **{f"Hz {source.topic}": f"{(source.count - source.told) / elapsed:.1f}" for source in sources},
            **{
                f"lost {topic}": ", ".join(f"{name} {number}" for name, number in each._asdict().items())
                for topic, each in losses.items()
            },
        }
        for source in sources:
            source.told = source.count
        return Statement(
            DiagnosticStatus.WARN if problems else DiagnosticStatus.OK, "; ".join(problems) or "recording", values
        )

    def _silent(self, now: float) -> list[str]:
        """Topics on which nothing came yet, and cameras that have stopped."""
        problems = []
        for source in self._sources.values():
            if source.expected and not source.count and now - self.started > SILENT_AFTER_S:
                problems.append(f"no message on {source.topic} since start")
                if not source.silence_reported:
                    source.silence_reported = True
                    self._warn(f"{problems[-1]}: {_advice(source)}")
        problems += [
            f"nothing on {source.topic} for {now - source.heard_at:.0f} s: see to that camera"
            for source in self._sources.values()
            if source.is_camera and source.heard_at is not None and now - source.heard_at > SILENT_AFTER_S
        ]
        return problems


def _lost(losses: Mapping[str, Losses], frames: int, others: int, malformed: int) -> list[str]:
    dropped = sum(each.queue for each in losses.values())
    said = {
        f"{frames} frames lost": frames,
        f"{others} other messages lost": others,
        f"{dropped} of these since the disk does not keep up": dropped,
        f"{malformed} malformed frames": malformed,
    }
    return [sentence for sentence, count in said.items() if count]


def _advice(source: Source) -> str:
    if source.subscription is None:
        return "nobody publishes it, or the clock stands still (check remaps, domain, use_sim_time)"
    return "its publisher is there but sends nothing"
