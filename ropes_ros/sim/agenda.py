"""When the simulation publishes what: images and joint states at fixed rates."""

from __future__ import annotations

from collections.abc import Iterator

from ropes_ros.units import NANOSECONDS


class Agenda:
    """The times of images and joint states, in ns since the simulation's start; the first lie one period after it.

    Args:
        image_rate: Images per second.
        state_rate: Joint states per second.
    """

    def __init__(self, image_rate: float, state_rate: float) -> None:
        self._image_rate, self._state_rate = image_rate, state_rate
        self._images = self._states = 0

    @property
    def next_image_ns(self) -> int:
        """Time of the next image."""
        return _grid(self._image_rate, self._images)

    @property
    def next_ns(self) -> int:
        """Time of the next entry, with or without an image."""
        return min(self.next_image_ns, _grid(self._state_rate, self._states))

    def due(self, until_ns: int) -> Iterator[tuple[int, bool]]:
        """What falls due up to a time, in order: its time in ns, and whether an image is to be taken then.

        A joint state belongs to every entry. An entry is ticked off when the next one is asked for.
        """
        while True:
            now_ns = self.next_ns
            if now_ns > until_ns:
                return
            with_image = self.next_image_ns == now_ns
            yield now_ns, with_image
            self._images += with_image
            self._states += _grid(self._state_rate, self._states) == now_ns

    def skip_late_images(self, until_ns: int) -> int:
        """Leave out the images up to a time for which a newer one is due as well; returns how many."""
        late = 0
        while _grid(self._image_rate, self._images + 1) <= until_ns:
            self._images += 1
            late += 1
        return late


def _grid(rate: float, index: int) -> int:
    return round((index + 1) * NANOSECONDS / rate)
