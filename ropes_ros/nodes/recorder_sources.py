"""What the recorder records: a topic of each role, more cameras, more topics; and what has become of each."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ropes_ros.bag_format import numbered, role_types
from ropes_ros.bags import Losses, OfferedQos
from ropes_ros.errors import BagError
from ropes_ros.gaps import GapCounter

RETAINED = 100
"""Messages of a latched topic that the next bag is given too, as a late subscriber would be."""

ROLES = {
    "image": "Camera topic, Image or CompressedImage",
    "camera_info": "Calibration of the camera",
    "joint_command": "Commands of the joints",
    "joint_states": "Measured joint states, used for evaluation only",
    "regime": "Regimes that the commander announces",
}
"""Role -> description of its parameter ROLE_topic."""


@dataclass
class Source:
    """One topic to record."""

    topic: str
    type_name: str = ""
    role: str = ""
    expected: bool = True
    subscription: Any = None
    qos: OfferedQos | None = None
    unusable: bool = False
    mistyped: bool = False
    malformed: int = 0
    transport: int = 0
    dropped: int = 0
    silence_reported: bool = False
    count: int = 0
    heard_at: float | None = None
    told: int = 0
    gaps: GapCounter = field(default_factory=GapCounter)
    retained: deque[bytes] = field(default_factory=lambda: deque(maxlen=RETAINED))

    def begin_bag(self) -> None:
        """Count from 0."""
        self.count = self.malformed = self.transport = self.dropped = self.told = 0
        self.heard_at = None
        self.silence_reported = False
        self.gaps = GapCounter()

    @property
    def is_camera(self) -> bool:
        """Whether it is of images."""
        return role_types(self.role) == role_types("image")

    @property
    def losses(self) -> Losses:
        """What of it is missing in the bag."""
        return Losses(self.gaps.missing, self.transport, self.dropped, self.malformed)


def wanted_sources(
    names: Mapping[str, str],
    cameras: Iterable[str],
    topics: Iterable[str],
    resolve: Callable[[str, str], str],
    *,
    with_regimes: bool,
) -> dict[str, Source]:
    """The topics to record, by resolved name.

    Args:
        names: Topic of each of `ROLES`.
        cameras: More cameras, each IMAGE or IMAGE:CAMERA_INFO.
        topics: More topics, each NAME or NAME:TYPE.
        resolve: The full name of a topic that a parameter names: of (parameter, name).
        with_regimes: Whether regimes are to be expected.

    Raises:
        BagError: Two of them are one topic, or one is no topic's name.
    """
    sources: dict[str, Source] = {}
    for role in ROLES:
        topic = resolve(f"{role}_topic", names[role])
        expected = role != "joint_states" and (role != "regime" or with_regimes)
        if topic in sources:
            raise BagError(f"parameters {role}_topic and {sources[topic].role}_topic both name {topic}: change one")
        sources[topic] = Source(topic, role=role, expected=expected)
    for camera, entry in enumerate(filter(None, cameras), start=2):
        image, _, info = entry.partition(":")
        for role, name in (("image", image), ("camera_info", info or _camera_info_beside(image))):
            topic = resolve("extra_cameras", name)
            wanted = Source(topic, role=numbered(role, camera), expected=role == "image" or bool(info))
            if sources.setdefault(topic, wanted) is not wanted and role == "image":
                raise BagError(f"parameter extra_cameras: {topic} is recorded already: name each topic once")
    sources["/tf_static"] = Source("/tf_static", expected=False)
    for entry in filter(None, topics):
        name, _, type_name = entry.partition(":")
        topic = resolve("extra_topics", name)
        sources.setdefault(topic, Source(topic, type_name))
    return sources


def parameter_of(role: str) -> str:
    """The parameter that names a role's topic."""
    return f"{role}_topic" if role in ROLES else "extra_cameras"


def _camera_info_beside(image: str) -> str:
    """Where a camera's calibration is by convention: beside its images (image_transport), compressed or not."""
    namespace, slash, _ = image.removesuffix("/compressed").rpartition("/")
    return f"{namespace}{slash}camera_info"


def message_class(type_name: str) -> Any:
    """The Python class of a message type such as "sensor_msgs/msg/Image".

    Raises:
        BagError: It is not installed.
    """
    package, _, rest = type_name.partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), rest.rpartition("/")[2])
    except (ImportError, AttributeError, ValueError):
        raise BagError(f"message type {type_name!r} is not installed: install its package") from None
