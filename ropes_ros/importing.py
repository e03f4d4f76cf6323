"""From a bag recorded elsewhere to an intervention bag: same messages, with the schedule and the regimes put to them.

Messages keep their log times and stamps, topics their names. What the commands were drawn from is either stated by the
user or estimated from the commanded positions; measured joint states are carried along and never looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_format import TOPICS, OfferedQos
from ropes_ros.bags import BagMessage, BagWriter, open_bag
from ropes_ros.cdr import header_stamp, parse_compressed_image, parse_image
from ropes_ros.commands import CommandTrack, replay_commands
from ropes_ros.dataset import load_timeline
from ropes_ros.densities import NONE, Levels
from ropes_ros.errors import BagError, RopesError, ScheduleError
from ropes_ros.foreign_bags import STANDARD, ForeignBag
from ropes_ros.regime_files import RegimeFile, Span
from ropes_ros.regime_inference import estimate_density, infer_regimes
from ropes_ros.regimes import STATUS_NAME, RegimeState, Schedule, Segment, regime_values
from ropes_ros.robot import Robot
from ropes_ros.schedule import IMPORTED
from ropes_ros.scheduling import joint_motion
from ropes_ros.units import NANOSECONDS
from ropes_ros.whole_folder import whole_folder
from ropes_ros.yaml_text import parse_yaml

_REGIME_TYPE = "diagnostic_msgs/msg/DiagnosticArray"
_TEXT_TYPE = "std_msgs/msg/String"
_LATCHED = OfferedQos(transient_local=True, depth=100)
LEAST_SAMPLES = 50
"""Commanded positions, 10 ms apart, that a density is estimated from at least."""


class Carried(NamedTuple):
    """What became of a topic's messages.

    Attributes:
        name: The topic.
        found: Messages in the source.
        written: Messages in the new bag.
        reason: Why some or all are missing; empty where none are.
    """

    name: str
    found: int
    written: int
    reason: str


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        path: The new bag.
        topics: What became of every topic.
        schedule: The schedule that the bag holds now.
        spans: Regimes, in ns since the epoch.
        track: What was commanded, where the bag tells.
        frames: Images with a regime of each joint, int64 [J].
        images: Images in all.
        sentences: What was assumed, and what to look at.
    """

    path: Path
    topics: tuple[Carried, ...]
    schedule: Schedule
    spans: tuple[Span, ...]
    track: CommandTrack | None
    frames: NDArray[np.int64]
    images: int
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class RegimeSource:
    """Where the regimes come from; with none of these, a regime topic of the bag.

    Attributes:
        file: Time ranges, or the levels of each of several bags.
        per_bag: Each of several bags is one regime: as `file` says, or one level of all joints named as the bag.
        infer: Find them in the commands.
        levels: Number of levels to find; as many as can be told apart when None.
        schedule: The schedule that our commander ran, for bags that `ros2 bag record` made of it.
    """

    file: RegimeFile | None = None
    per_bag: bool = False
    infer: bool = False
    levels: int | None = None
    schedule: Schedule | None = None


def import_bag(
    source: Path, out: Path, robot: Robot, *, topics: Mapping[str, str], regimes: RegimeSource
) -> Imported:
    """Write an intervention bag from one recorded elsewhere.

    Args:
        source: A rosbag2 directory, .mcap, .db3 or ROS 1 .bag; with `regimes.per_bag` a folder of such bags.
        out: The bag to create.
        robot: The robot that was commanded.
        topics: Role to topic name, where the topic's type does not tell.
        regimes: Where the regimes come from.

    Raises:
        BagError: The source is no bag or damaged, lacks images or regimes, or `out` exists.
        ScheduleError: The regimes make no sense, or none can be found.
        RuntimeSetupError: A package is missing that estimating needs.
    """
    with ExitStack() as stack:
        paths = _bags_in(source) if regimes.per_bag else [source]
        bags = sorted((stack.enter_context(ForeignBag(path)) for path in paths), key=lambda bag: bag.start_ns)
        roles = {role: bags[0].role(role, topics) for role in TOPICS}
        if roles["image"] is None:
            raise BagError(
                f"{source} has no images: it has "
                + ", ".join(f"{topic.name} ({topic.type_name})" for topic in bags[0].topics.values())
            )
        carried_over = _carried_over(bags[0], roles["regime"], robot, regimes)
        sentences: list[str] = []
        tracks: list[CommandTrack | None] = [None] * len(bags)
        if carried_over is None:
            commanded = regimes.infer or regimes.file is None or regimes.file.densities is None
            tracks = [_track(bag, roles["joint_command"], robot, None if commanded else sentences) for bag in bags]
        found = carried_over or _regimes(bags, roles["regime"], tracks, robot, regimes)
        with whole_folder(out):
            try:
                carried, stamps = _write(bags, out, robot, roles, found)
            except BagError as error:
                if isinstance(error.__cause__, OSError):  # its advice is to recover what is removed here
                    reason = error.__cause__.strerror
                    raise BagError(f"{out} cannot be written ({reason}): make room, or import elsewhere") from error
                raise
            with open_bag(out) as bag:
                frames = (load_timeline(bag).labels_at(stamps) >= 0).sum(axis=0)
    sentences += found.sentences
    if not frames.any():
        sentences.append(
            f"none of the {len(stamps)} images lies in a regime: are the images' stamps of the clock that the regimes "
            "are told in?"
        )
    track = _joined(tracks)
    return Imported(
        out, tuple(carried), found.schedule, found.spans, track, frames, len(stamps), tuple(sentences)
    )


@dataclass(frozen=True)
class _Regimes:
    """Schedule and regimes to be written; without segments the source's regime topic is carried over as it is."""

    schedule: Schedule
    start_ns: int = 0
    spans: tuple[Span, ...] = ()
    sentences: tuple[str, ...] = ()

    @property
    def segments(self) -> bool:
        return bool(self.spans)


def _bags_in(folder: Path) -> list[Path]:
    found = sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix in (".bag", ".mcap", ".db3") or (path / "metadata.yaml").is_file()
    )
    if not found or (folder / "metadata.yaml").is_file():
        raise BagError(f"{folder}: with --per-regime-bags name a folder that holds the bags, one a regime")
    return found


def _track(bag: ForeignBag, topic: str | None, robot: Robot, said: list[str] | None) -> CommandTrack | None:
    """What was commanded in a bag; None where it holds no commands, or, with `said`, none that can be followed."""
    if topic is None or topic not in bag.topics or not bag.topics[topic].count:
        return None
    whole = (message for message in bag.messages({topic}) if isinstance(message, BagMessage))
    commands = ((message.data, message.log_time_ns) for message in whole)
    try:
        return replay_commands(bag, robot, topic, bag.topics[topic].type_name, commands)
    except BagError as error:
        if said is None:
            raise
        said.append(f"the plot is without commands: {error}")
        return None


def _joined(tracks: Sequence[CommandTrack | None]) -> CommandTrack | None:
    """The tracks of bags in order of time as one."""
    known = [track for track in tracks if track is not None]
    if not known:
        return None
    times, u = np.concatenate([track.times_ns for track in known]), np.concatenate([track.u for track in known])
    rising = np.concatenate([[True], np.diff(np.maximum.accumulate(times)) > 0])
    return CommandTrack(times[rising], u[rising], known[0].source)


def _carried_over(bag: ForeignBag, topic: str | None, robot: Robot, wanted: RegimeSource) -> _Regimes | None:
    """The schedule of a bag whose regime topic is carried over as it is; None where regimes are to be written."""
    if wanted.infer or wanted.per_bag or wanted.file is not None or topic is None:
        return None
    if bag.topics[topic].type_name != _REGIME_TYPE:
        return None
    schedule = wanted.schedule or bag.schedule()
    if schedule is None:
        raise BagError(
            f"{bag.path}: {topic} tells regimes of a schedule that the bag does not hold: name it (--schedule FILE)"
        )
    schedule.check_robot(robot)
    return _Regimes(schedule)


def _regimes(
    bags: Sequence[ForeignBag],
    topic: str | None,
    tracks: Sequence[CommandTrack | None],
    robot: Robot,
    wanted: RegimeSource,
) -> _Regimes:
    file, first = wanted.file, bags[0]
    sentences: tuple[str, ...] = ()
    if wanted.infer:
        if tracks[0] is None:
            raise BagError(f"{first.path} holds no joint commands to infer regimes from (--topic joint_command=NAME)")
        inferred = infer_regimes(tracks[0], robot.joint_names, levels=wanted.levels)
        spans, sentences = list(inferred.spans), inferred.sentences
    elif wanted.per_bag:
        spans = _one_regime_a_bag(bags, tracks, robot, file)
    elif file is not None:
        if file.bags:
            raise ScheduleError("the file of regimes is about one bag a regime: give --per-regime-bags")
        spans = list(file.spans(first.start_ns))
    elif topic is not None:
        spans = _spans_of_texts(first, topic, robot)
    else:
        raise BagError(
            f"{first.path} says nothing of regimes: give --regimes FILE, --infer-regimes, --per-regime-bags, or the "
            "topic that tells them (--topic regime=NAME)"
        )
    start_ns = min(bag.start_ns for bag in bags)
    densities = None if file is None else file.densities
    return _Regimes(*_schedule(robot, spans, densities, _joined(tracks), start_ns, sentences))


def _one_regime_a_bag(
    bags: Sequence[ForeignBag], tracks: Sequence[CommandTrack | None], robot: Robot, file: RegimeFile | None
) -> list[Span]:
    spans: list[Span] = []
    for bag, track in zip(bags, tracks, strict=True):
        name = bag.path.stem
        if file is not None:
            if name not in file.bags:
                raise ScheduleError(f"the file of regimes says nothing of the bag {name}: add it under 'bags'")
            held = dict(file.bags[name])
        else:
            held = dict.fromkeys(range(len(robot.joint_names)), _as_level(name))
        start_ns = bag.start_ns if track is None else int(track.times_ns[0])
        end_ns = bag.end_ns if track is None else max(bag.end_ns, int(track.times_ns[-1]))
        spans += [Span(joint, level, start_ns, end_ns) for joint, level in held.items() if level != NONE]
    return spans


def _as_level(name: str) -> str:
    """A bag's name as a level's id, which begins with a letter and holds few signs."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.+-") else "_" for letter in name)
    return plain if plain[:1].isalpha() or plain[:1] == "_" else f"r{plain}"


def _spans_of_texts(bag: ForeignBag, topic: str, robot: Robot) -> list[Span]:
    """Regimes of a std_msgs/String topic: one level for all joints, or a YAML mapping of joint to level.

    Each message holds from when it was recorded to the next one.
    """
    spans: list[Span] = []
    current: dict[int, tuple[str, int]] = {}
    for message in bag.messages({topic}):
        if not isinstance(message, BagMessage):
            raise message
        text = bag.deserialize(message.data, _TEXT_TYPE).data
        try:
            said = parse_yaml(text)
        except RopesError:
            said = text.strip()
        if not isinstance(said, dict):
            said = dict.fromkeys(robot.joint_names, str(said))
        for name, level in said.items():
            if name not in robot.joint_names:
                raise BagError(
                    f"{bag.path}: {topic} names joint '{name}', the robot's are {', '.join(robot.joint_names)}"
                )
            joint, level = robot.joint_names.index(name), NONE if level is None else str(level)
            held = current.get(joint)
            if held is not None and held[0] == level:
                continue
            if held is not None and held[0] != NONE:
                spans.append(Span(joint, held[0], held[1], message.log_time_ns))
            current[joint] = level, message.log_time_ns
    spans += [Span(joint, level, start, bag.end_ns) for joint, (level, start) in current.items() if level != NONE]
    return spans


def _schedule(
    robot: Robot,
    spans: Sequence[Span],
    densities: Levels | None,
    track: CommandTrack | None,
    start_ns: int,
    sentences: Sequence[str],
) -> tuple[Schedule, int, tuple[Span, ...], tuple[str, ...]]:
    """The schedule that tells of spans, and the spans that it keeps."""
    said = list(sentences)
    start_ns = min([start_ns, *(span.start_ns for span in spans)])
    ids = densities.ids if densities is not None else tuple(sorted({span.level for span in spans}, key=_natural))
    if len(ids) < 2:
        raise ScheduleError(
            f"the regimes have {', '.join(ids) or 'no'} level alone: two levels of a joint are the least that tells"
        )
    if densities is None and track is None:
        raise BagError(
            "the bag holds no joint commands to estimate the levels' densities from: state them under 'levels' in the "
            "file of regimes"
        )
    own: list[Levels] = []
    kept: list[Span] = []
    for joint, name in enumerate(robot.joint_names):
        mine = [span for span in spans if span.joint == joint]
        missing = [level for level in ids if level not in {span.level for span in mine}]
        if mine and missing:
            said.append(
                f"joint {name} is never at level {', '.join(missing)}: it cannot be learned, every joint must visit "
                "every level"
            )
        if densities is not None:
            own.append(densities)
            kept += mine
            continue
        assert track is not None
        levels, problem = _estimated(track, mine, ids)
        if problem and mine:
            said.append(f"joint {name} is left without regimes: {problem}")
        elif mine:
            kept += mine
        own.append(levels)
    if densities is None:
        said.append(
            "the levels' densities were estimated from the commanded positions, smoothed, with a uniform share of 5 %: "
            "state them in a file of regimes where you know them"
        )
    kept.sort(key=lambda span: (span.start_ns, span.joint))
    joints = tuple(joint_motion(joint) for joint in robot.joints)
    end_ns = max((span.end_ns for span in kept), default=start_ns + 1)
    segments = tuple(
        Segment(
            span.joint,
            span.level,
            span.start_ns - start_ns,
            span.end_ns - start_ns,
            -1.0,
            1.0,
            joints[span.joint].min_speed,
            0.0,
            1,
        )
        for span in kept
    )
    if not segments:
        raise ScheduleError("no joint is left with regimes: " + "; ".join(said))
    return (
        Schedule(robot.name, 0, IMPORTED, own[0], joints, segments, end_ns - start_ns, 0, joint_levels=tuple(own)),
        start_ns,
        tuple(kept),
        tuple(said),
    )


def _natural(level: str) -> tuple[str, int, str]:
    """Order of levels: l2 before l10."""
    digits = level[len(level.rstrip("0123456789")) :]
    return level[: len(level) - len(digits)], int(digits or 0), level


def _estimated(track: CommandTrack, spans: Sequence[Span], ids: Sequence[str]) -> tuple[Levels, str]:
    """Densities of a joint's levels by its commands; stand-ins, and why, where they cannot be told."""
    stand_in = Levels(dict(zip(ids, Levels.bumps(len(ids), 1.2 / len(ids)).densities, strict=True)))
    positions: dict[str, list[NDArray[np.float64]]] = {level: [] for level in ids}
    for span in spans:
        a, b = np.searchsorted(track.times_ns, [span.start_ns, span.end_ns])
        positions[span.level].append(track.u[a:b, span.joint])
    for level, parts in positions.items():
        count = sum(len(part) for part in parts)
        if count < LEAST_SAMPLES:
            return stand_in, f"{count} commanded positions are known of its level {level}"
        if np.concatenate(parts).std() < 1e-6:
            return stand_in, f"at level {level} it is commanded to one position, which is no density"
    problem = ""
    for smoothing in (1.0, 1.5, 2.25):  # a rough table makes angles look alike that are not
        try:
            estimated = {
                level: estimate_density(np.concatenate(parts), len(parts), smoothing=smoothing)
                for level, parts in positions.items()
            }
            return Levels(estimated), ""
        except ScheduleError as error:
            problem = problem or str(error)
    return stand_in, problem


def _write(
    bags: Sequence[ForeignBag], out: Path, robot: Robot, roles: Mapping[str, str | None], found: _Regimes
) -> tuple[list[Carried], NDArray[np.int64]]:
    """Write the bag; what became of each topic, and the images' stamps in ns, int64 [N]."""
    every: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for bag in bags:
        for name, topic in bag.topics.items():
            if name in bag.left_out:
                reasons.setdefault(name, bag.left_out[name])
            elif every.setdefault(name, topic.type_name) != topic.type_name:
                raise BagError(f"{bag.path}: {name} is of type {topic.type_name}, of {every[name]} in another bag")
    named = {role: name for role, name in roles.items() if name is not None}
    if found.segments:
        named["regime"] = TOPICS["regime"] if TOPICS["regime"] not in every else f"{TOPICS['regime']}/imported"
    stamps: list[int] = []
    unreadable: dict[str, int] = {}
    with BagWriter(
        out,
        robot=robot.name,
        schedule_yaml=found.schedule.to_yaml(),
        schedule_hash=found.schedule.hash,
        topics=named,
    ) as writer:
        for name, type_name in every.items():
            latched = name.endswith("/tf_static") or name == named.get("regime")
            writer.add_topic(name, type_name, _LATCHED if latched else None)
        if found.segments:
            writer.add_topic(named["regime"], _REGIME_TYPE, _LATCHED)
        streams: list[Iterable[BagMessage]] = [_whole(bag, every, named, unreadable) for bag in bags]
        if found.segments:
            streams.append(_regime_messages(found, named["regime"], robot.joint_names))
        for message in heapq.merge(*streams, key=lambda message: message.log_time_ns):
            if message.topic == named["image"]:
                stamps.append(header_stamp(message.data))
            writer.write(message.topic, message.data, message.log_time_ns)
        written = writer.counts
    carried = []
    for name in sorted({name for bag in bags for name in bag.topics}):
        count = sum(bag.topics[name].count for bag in bags if name in bag.topics)
        reason = reasons.get(name, "")
        if unreadable.get(name):
            reason = f"{unreadable[name]} cannot be read"
        elif not reason and written.get(name, 0) != count:
            reason = "the source announces more than it holds"
        carried.append(Carried(name, count, written.get(name, 0), reason))
    if found.segments:
        carried.append(Carried(named["regime"], 0, written[named["regime"]], "written by the import"))
    return carried, np.asarray(stamps, dtype=np.int64)


def _whole(
    bag: ForeignBag, topics: Mapping[str, str], roles: Mapping[str, str], unreadable: dict[str, int]
) -> Iterator[BagMessage]:
    """Messages of topics (and their types) that can be read; the others are counted.

    Of messages that need no conversion, images and regimes are looked at.
    """
    image, regime = roles["image"], roles.get("regime", "")
    readers: dict[str, Callable[[bytes], object]] = {
        image: parse_compressed_image if topics[image].endswith("CompressedImage") else parse_image,
        regime: lambda data: bag.deserialize(data, topics[regime]),
    }
    for message in bag.messages(topics):
        if not isinstance(message, BagMessage):
            topic = str(message).removeprefix(f"{bag.path}: ").partition(": ")[0]
        elif _is_readable(message.data, readers.get(message.topic)):
            yield message
            continue
        else:
            topic = message.topic
        unreadable[topic] = unreadable.get(topic, 0) + 1


def _is_readable(data: bytes, read: Callable[[bytes], object] | None) -> bool:
    try:
        if read is not None:
            read(data)
    except RopesError:
        return False
    return True


def _regime_messages(found: _Regimes, topic: str, joint_names: Sequence[str]) -> Iterator[BagMessage]:
    """A regime message at every change, recorded when it begins to hold."""
    for state in regime_states(found.schedule, found.start_ns):
        yield BagMessage(topic, state.stamp_ns, regime_cdr(state, joint_names))


def regime_states(schedule: Schedule, start_ns: int) -> Iterator[RegimeState]:
    """The regimes of a schedule that starts at `start_ns` (since the epoch), one at every change of any joint's."""
    edges = sorted({edge for segment in schedule.segments for edge in (segment.start_ns, segment.end_ns)})
    times = np.array(edges, dtype=np.int64)
    labels, segments = schedule.labels_at(times), schedule.segment_ids_at(times)
    for seq, elapsed_ns in enumerate(edges):
        yield RegimeState(
            schedule.hash,
            start_ns + elapsed_ns,
            seq,
            tuple(schedule.levels.ids[level] if level >= 0 else NONE for level in labels[seq]),
            tuple(int(segment) for segment in segments[seq]),
            tuple(
                start_ns + schedule.segments[segment].end_ns if segment >= 0 else 0 for segment in segments[seq]
            ),
        )


def regime_cdr(state: RegimeState, joint_names: Sequence[str]) -> bytes:
    """A regime as the commander would publish it."""
    types: Mapping[str, Any] = STANDARD.types
    pair = types["diagnostic_msgs/msg/KeyValue"]
    values = [pair(key=key, value=value) for key, value in regime_values(state, joint_names)]
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](
        level=0, name=STATUS_NAME, message="", hardware_id=state.schedule_hash, values=values
    )
    stamp = types["builtin_interfaces/msg/Time"](
        sec=state.stamp_ns // NANOSECONDS, nanosec=state.stamp_ns % NANOSECONDS
    )
    array = types[_REGIME_TYPE](header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=""), status=[status])
    return bytes(STANDARD.serialize_cdr(array, _REGIME_TYPE))
