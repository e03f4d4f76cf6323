"""Frames, labels and splits: what they say is what was commanded, and no joint state is ever involved."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.records import ChunkIndex
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from synthetic import (
    FRAME_PERIOD_NS,
    START_NS,
    draw,
    header,
    image_cdr,
    joint_states_cdr,
    message,
    positions_of,
    regime_cdr,
    regime_states,
    serialize,
    stick_robot,
    typestore,
    write_synthetic_bag,
)

from ropes_ros import bag_images, dataset
from ropes_ros.bag_images import BagPixels
from ropes_ros.bags import TOPICS, BagWriter, open_bag
from ropes_ros.dataset import FrameSet, load_frames, load_labels, split_spans
from ropes_ros.errors import BagError, TrainingError
from ropes_ros.framing import Crop, Region, area_weights
from ropes_ros.mcap_chunks import ChunkReader
from ropes_ros.regimes import REACH_NS, Schedule
from ropes_ros.truth import load_truth

SIZE = (32, 24)
Edit = Callable[[str, int, bytes], "bytes | None"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Schedule]:
    path = tmp_path_factory.mktemp("recorded") / "bag"
    return path, write_synthetic_bag(path, frames=400, seed=3)


@pytest.fixture(scope="module")
def frames(recorded: tuple[Path, Schedule], tmp_path_factory: pytest.TempPathFactory) -> FrameSet:
    return load_frames(recorded[0], size=SIZE, cache_dir=tmp_path_factory.mktemp("cache"))


def rewrite(source: Path, target: Path, edit: Edit, **header_changes: str | None) -> Path:
    """Copy a bag message by message; `edit` returns the message to write, or None to leave it out."""
    with open_bag(source) as bag:
        assert bag.header is not None
        kept = {"schedule_yaml": bag.header.schedule_yaml, "schedule_hash": bag.header.schedule_hash}
        with BagWriter(target, robot=bag.header.robot, **{**kept, **header_changes}) as writer:
            for topic in bag.topics.values():
                writer.add_topic(topic.name, topic.type_name)
            for entry in bag.messages():
                data = edit(entry.topic, entry.log_time_ns, entry.data)
                if data is not None:
                    writer.write(entry.topic, data, entry.log_time_ns)
    return target


def write_bag(
    path: Path, schedule: Schedule, images: list[bytes], type_name: str = "sensor_msgs/msg/Image"
) -> Path:
    """A bag of given image messages with the regimes of a schedule."""
    with BagWriter(
        path, robot="stick", schedule_yaml=schedule.to_yaml(), schedule_hash=schedule.hash
    ) as writer:
        writer.add_topic(TOPICS["image"], type_name)
        writer.add_topic(TOPICS["regime"], "diagnostic_msgs/msg/DiagnosticArray")
        for state in regime_states(schedule, START_NS):
            writer.write(TOPICS["regime"], regime_cdr(state, schedule.joint_names), state.stamp_ns)
        for number, cdr in enumerate(images):
            writer.write(TOPICS["image"], cdr, START_NS + number)
    return path


def assert_same(one: FrameSet, other: FrameSet) -> None:
    """Everything that learning sees is equal bit by bit."""
    for field in dataclasses.fields(FrameSet):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and np.array_equal(a, b), field.name
        elif field.name not in ("bag_hash", "details"):
            assert a == b, field.name


def assert_resized(images: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
    """Images, uint8 [n, h, w, 3], are what a graph makes of pixels, uint8 [n, H, W, 3]: rounded means by area."""
    rows, columns = (area_weights(pixels.shape[axis], images.shape[axis]) for axis in (1, 2))
    means = np.einsum("ij,njkc,lk->nilc", rows, pixels.astype(np.float64), columns)
    assert np.abs(images - means).max() <= 0.5 + 1e-9


def test_images_stamps_and_labels_are_those_of_the_schedule(
    recorded: tuple[Path, Schedule], frames: FrameSet
) -> None:
    path, schedule = recorded
    robot = stick_robot(path.with_suffix(".robot"))
    positions = positions_of(robot, schedule, frames.stamps_ns)
    assert len(frames) == 400 and frames.images.shape == (400, 24, 32, 3) and frames.camera_size == (64, 48)
    assert (np.diff(frames.stamps_ns) == FRAME_PERIOD_NS).all()
    for number in (0, 150, 399):
        part = frames.region.cut(draw(positions[number], (64, 48)))
        assert_resized(frames.images[[number]], part[None])
    elapsed = frames.stamps_ns - START_NS
    assert np.array_equal(frames.labels, schedule.labels_at(elapsed))
    assert np.array_equal(frames.segments >= 0, frames.labels >= 0)
    assert (frames.labels >= 0).mean() > 0.4
    assert frames.level_ids == tuple(schedule.levels.ids)
    assert frames.joint_names == ("joint1", "joint2")
    assert np.allclose(np.exp(frames.log_density), schedule.commanded)
    assert frames.schedule_hash == schedule.hash


def test_labels_hold_from_a_segments_start_to_just_before_its_end(
    tmp_path: Path, recorded: tuple[Path, Schedule]
) -> None:
    schedule = recorded[1]
    segment = schedule.segments[4]
    stamps = [
        START_NS + t for t in (segment.start_ns - 1, segment.start_ns, segment.end_ns - 1, segment.end_ns)
    ]
    pixels = np.zeros((24, 32, 3), dtype=np.uint8)
    bag = write_bag(tmp_path / "bag", schedule, [image_cdr(stamp, pixels) for stamp in stamps])
    labels = load_frames(bag, size=SIZE, cache_dir=tmp_path / "cache").labels[:, segment.joint]
    level = schedule.levels.ids.index(segment.level)
    assert labels.tolist() == [-1, level, level, -1]


def test_labels_without_the_images_are_those_of_the_frames(recorded: tuple[Path, Schedule], frames: FrameSet) -> None:
    with open_bag(recorded[0]) as bag:
        np.testing.assert_array_equal(load_labels(bag, frames.stamps_ns), frames.labels)


def test_a_lost_regime_message_leaves_no_stale_label(tmp_path: Path, recorded: tuple[Path, Schedule]) -> None:
    path, schedule = recorded
    regimes = [state.stamp_ns for state in regime_states(schedule, START_NS)]
    lost = regimes[len(regimes) // 2]
    bag = rewrite(
        path,
        tmp_path / "bag",
        lambda topic, t, data: None if topic == TOPICS["regime"] and t == lost else data,
    )
    found = load_frames(bag, size=SIZE, cache_dir=tmp_path / "cache")
    truth = schedule.labels_at(found.stamps_ns - START_NS)
    before, after = regimes[len(regimes) // 2 - 1], regimes[len(regimes) // 2 + 1]
    unsure = (found.stamps_ns >= before - REACH_NS) & (found.stamps_ns < after)
    assert unsure.any() and not unsure.all()
    assert (found.labels[unsure] == -1).all()
    assert np.array_equal(found.labels[~unsure], truth[~unsure])


def corrupt_joint_states(topic: str, time_ns: int, data: bytes) -> bytes | None:
    if topic != TOPICS["joint_states"]:
        return data
    if time_ns % 3 == 0:
        return b"\x00\x01\x00\x00 no message at all"
    return joint_states_cdr(time_ns, ("elbow", "nose"), np.array([np.nan, 1e9]))


@pytest.mark.parametrize(
    "edit",
    [corrupt_joint_states, lambda topic, _, data: None if topic == TOPICS["joint_states"] else data],
    ids=["corrupted", "stripped"],
)
def test_joint_states_have_no_way_into_the_frames(
    tmp_path: Path, recorded: tuple[Path, Schedule], frames: FrameSet, edit: Edit
) -> None:
    bag = rewrite(recorded[0], tmp_path / "bag", edit)
    assert_same(load_frames(bag, size=SIZE, cache_dir=tmp_path / "cache"), frames)


def test_only_image_and_regime_topics_are_asked_for(
    tmp_path: Path, recorded: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    messages, in_chunk = dataset.Bag.messages, ChunkReader.messages

    def spy(bag: dataset.Bag, topics: tuple[str, ...] = (), *times: int) -> object:
        asked.append(set(topics))
        return messages(bag, topics, *times)

    def chunk_spy(reader: ChunkReader, file: Path, chunk: ChunkIndex, channels: dict[int, str]) -> object:
        asked.append(set(channels.values()))
        return in_chunk(reader, file, chunk, channels)

    monkeypatch.setattr(dataset.Bag, "messages", spy)
    monkeypatch.setattr(ChunkReader, "messages", chunk_spy)
    load_frames(recorded[0], size=SIZE, cache_dir=tmp_path)
    assert set().union(*asked) == {TOPICS["image"], TOPICS["regime"]}


def test_loading_twice_gives_the_same_and_the_cache_spares_the_images(
    tmp_path: Path, recorded: tuple[Path, Schedule], frames: FrameSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_frames(recorded[0], size=SIZE, cache_dir=tmp_path)
    monkeypatch.setattr(bag_images, "decode_image", None)
    second = load_frames(recorded[0], size=SIZE, cache_dir=tmp_path)
    assert_same(first, second)
    assert_same(first, frames)
    assert first.bag_hash == second.bag_hash
    assert first.description()["bag_hash"] == first.bag_hash


def test_a_crop_is_kept_where_less_of_the_image_moves(tmp_path: Path, recorded: tuple[Path, Schedule]) -> None:
    """What a network knows of the image is what it is given, not the part that another recording sweeps."""
    path, _ = recorded
    swept = load_frames(path, size=(16, 12), cache_dir=tmp_path / "cache")
    whole = Region(0, 0, *swept.camera_size)
    assert swept.region != whole
    kept = load_frames(path, size=(16, 12), cache_dir=tmp_path / "cache", crop=Crop(whole, follows=False))
    assert kept.region == whole
    (first,) = BagPixels(path, TOPICS["image"], kept.stamps_ns, kept.camera_size, whole).read(np.array([0]))
    assert_resized(kept.images[[0]], first[None])
    assert not np.array_equal(kept.images[0], swept.images[0])
    again = load_frames(path, size=(16, 12), cache_dir=tmp_path / "cache")
    assert again.region == swept.region
    with pytest.raises(BagError, match="set the camera to its size"):
        load_frames(
            path, size=(16, 12), cache_dir=tmp_path / "cache", crop=Crop(Region(0, 0, 999, 999), follows=False)
        )


def test_each_size_has_its_own_cache_entry(tmp_path: Path, recorded: tuple[Path, Schedule]) -> None:
    small = load_frames(recorded[0], size=(16, 12), cache_dir=tmp_path)
    full = load_frames(recorded[0], size=(64, 48), cache_dir=tmp_path)
    assert small.images.shape[1:] == (12, 16, 3)
    assert full.images.shape[1:] == (48, 64, 3)


def test_an_interrupted_load_leaves_nothing_that_looks_whole(
    tmp_path: Path, recorded: tuple[Path, Schedule], frames: FrameSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_frames(recorded[0], size=SIZE, cache_dir=tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []
    # a process killed outright cannot tidy up: what it leaves must not be taken for an entry either
    with monkeypatch.context() as patch:
        patch.setattr(bag_images.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            load_frames(recorded[0], size=SIZE, cache_dir=tmp_path, progress=stop)
    assert len(list(tmp_path.iterdir())) == 1
    assert_same(load_frames(recorded[0], size=SIZE, cache_dir=tmp_path), frames)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_encodings_and_padding(tmp_path: Path, recorded: tuple[Path, Schedule], encoding: str) -> None:
    schedule = recorded[1]
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    alpha = np.full((24, 32, 1), 9, dtype=np.uint8)
    encoded = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], axis=2),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], axis=2),
        "mono8": rgb[..., :1],
    }[encoding]
    expected = np.repeat(rgb[..., :1], 3, axis=2) if encoding == "mono8" else rgb
    stamp = START_NS + schedule.segments[0].start_ns
    bag = write_bag(tmp_path / "bag", schedule, [image_cdr(stamp, encoded, encoding, padding=5)])
    found = load_frames(bag, size=(32, 24), cache_dir=tmp_path / "cache")
    assert np.array_equal(found.images[0], expected)


def compressed_cdr(stamp_ns: int, data: NDArray[np.uint8]) -> bytes:
    return serialize(
        message("sensor_msgs/msg/CompressedImage", header=header(stamp_ns), format="rgb8; png", data=data)
    )


def test_compressed_images(tmp_path: Path, recorded: tuple[Path, Schedule]) -> None:
    schedule = recorded[1]
    stamp = START_NS + schedule.segments[0].start_ns
    rgb = draw(np.array([0.3, 0.4]), (64, 48))
    png = cv2.imencode(".png", rgb[..., ::-1])[1]
    jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
    kind = "sensor_msgs/msg/CompressedImage"
    images = [compressed_cdr(stamp, png), compressed_cdr(stamp + 1, jpeg)]
    bag = write_bag(tmp_path / "bag", schedule, images, kind)
    found = load_frames(bag, size=(64, 48), cache_dir=tmp_path / "cache").images
    assert np.array_equal(found[0], rgb)
    assert np.abs(found[1].astype(int) - rgb).mean() < 3
    broken = write_bag(tmp_path / "broken", schedule, [compressed_cdr(stamp, png[:40])], kind)
    with pytest.raises(BagError, match=r"broken.*cannot be decoded"):
        load_frames(broken, size=(64, 48), cache_dir=tmp_path / "cache")


def test_frames_are_sorted_by_stamp_and_duplicates_left_out(
    tmp_path: Path, recorded: tuple[Path, Schedule]
) -> None:
    schedule = recorded[1]
    first = START_NS + schedule.segments[0].start_ns
    order = [0, 2, 1, 2, 3]
    images = [image_cdr(first + n, np.full((24, 32, 3), 10 * n, dtype=np.uint8)) for n in order]
    bag = write_bag(tmp_path / "bag", schedule, images)
    found = load_frames(bag, size=SIZE, cache_dir=tmp_path / "cache")
    assert (found.stamps_ns - first).tolist() == [0, 1, 2, 3]
    assert found.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    assert found.duplicates == 1


def test_of_equal_stamps_the_first_recorded_counts_also_where_chunks_overlap(
    tmp_path: Path, recorded: tuple[Path, Schedule]
) -> None:
    schedule = recorded[1]
    first = START_NS + schedule.segments[0].start_ns
    with BagWriter(
        tmp_path / "bag", robot="stick", schedule_yaml=schedule.to_yaml(), schedule_hash=schedule.hash
    ) as writer:
        writer.add_topic(TOPICS["image"], "sensor_msgs/msg/Image")
        writer.add_topic(TOPICS["regime"], "diagnostic_msgs/msg/DiagnosticArray")
        for state in regime_states(schedule, START_NS):
            writer.write(TOPICS["regime"], regime_cdr(state, schedule.joint_names), state.stamp_ns)
        for arrival, stamp, value in ((7, 0, 70), (9, 1, 90), (3, 0, 30), (5, 2, 50), (8, 1, 80)):
            grey = np.full((1000, 1500, 3), value, dtype=np.uint8)  # each is a chunk
            writer.write(TOPICS["image"], image_cdr(first + stamp, grey), first + arrival)
    found = load_frames(tmp_path / "bag", size=SIZE, cache_dir=tmp_path / "cache")
    assert found.images[:, 0, 0, 0].tolist() == [30, 80, 50] and found.duplicates == 2
    assert found.details is not None
    assert found.details.read(np.arange(3))[:, 0, 0, 0].tolist() == [30, 80, 50]


def test_regimes_of_one_log_time_keep_their_order_whichever_chunk_is_read_first(
    tmp_path: Path, recorded: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In simulated time many messages are logged at one moment; several threads read the chunks that they are in."""
    schedule = recorded[1]
    states = regime_states(schedule, START_NS)
    with BagWriter(
        tmp_path / "bag", robot="stick", schedule_yaml=schedule.to_yaml(), schedule_hash=schedule.hash
    ) as writer:
        writer.add_topic(TOPICS["image"], "sensor_msgs/msg/Image")
        writer.add_topic(TOPICS["regime"], "diagnostic_msgs/msg/DiagnosticArray")
        for number, part in enumerate(np.array_split(np.arange(len(states)), 5)):
            for index in part:
                writer.write(TOPICS["regime"], regime_cdr(states[index], schedule.joint_names), START_NS)
            grey = np.full((1000, 1500, 3), 50 * number, dtype=np.uint8)  # ends a chunk
            stamp = START_NS + schedule.segments[0].start_ns + number
            writer.write(TOPICS["image"], image_cdr(stamp, grey), START_NS)
    read, late = ChunkReader.messages, iter(range(100))

    def unevenly(self: ChunkReader, file: Path, chunk: ChunkIndex, channels: Any) -> Iterator[Any]:
        messages = list(read(self, file, chunk, channels))
        time.sleep(0.2 * (next(late) % 2 == 0))
        return iter(messages)

    monkeypatch.setattr(ChunkReader, "messages", unevenly)
    found = load_frames(tmp_path / "bag", size=SIZE, cache_dir=tmp_path / "cache")
    with open_bag(tmp_path / "bag") as bag:
        assert found.labels.tolist() == load_labels(bag, found.stamps_ns).tolist()
    assert (found.labels >= 0).any()


def test_pixels_read_back_from_the_bag_are_those_of_the_frames(frames: FrameSet) -> None:
    assert isinstance(frames.details, BagPixels)
    everything = np.arange(len(frames))
    whole = frames.details.read(everything)
    assert whole.shape == (400, frames.region.height, frames.region.width, 3)
    assert_resized(frames.images, whole)
    for chosen in ([5, 6, 90], [91, 399], [0], [], [3, 200]):  # onwards, and back twice
        assert np.array_equal(frames.details.read(np.array(chosen, dtype=np.int64)), whole[chosen])
    for wrong in ([4, 3], [3, 3], [-1, 3], [399, 400]):
        with pytest.raises(ValueError, match=r"increase within 0\.\.399"):
            frames.details.read(np.array(wrong))


def test_only_wanted_pixels_are_decoded_and_only_going_back_starts_again(
    recorded: tuple[Path, Schedule], frames: FrameSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    opened: list[Path] = []
    decode, opening = bag_images.decode_image, bag_images.open_bag

    def decode_spy(cdr: bytes, compressed: bool, source: str) -> tuple[int, NDArray[np.uint8]]:
        stamp_ns, image = decode(cdr, compressed, source)
        decoded.append(int(np.searchsorted(frames.stamps_ns, stamp_ns)))
        return stamp_ns, image

    def open_spy(path: Path, **options: object) -> object:
        opened.append(path)
        return opening(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(bag_images, "decode_image", decode_spy)
    monkeypatch.setattr(bag_images, "open_bag", open_spy)
    details = BagPixels(recorded[0], TOPICS["image"], frames.stamps_ns, frames.camera_size, frames.region)
    for chosen in ([7, 9], [10, 300], [301]):
        details.read(np.array(chosen))
    assert decoded == [7, 9, 10, 300, 301] and len(opened) == 1
    details.read(np.array([8]))
    assert decoded[5:] == [8] and len(opened) == 2


def test_pixels_of_a_bag_out_of_order_are_those_of_the_first_of_equal_stamps(
    tmp_path: Path, recorded: tuple[Path, Schedule]
) -> None:
    schedule = recorded[1]
    first = START_NS + schedule.segments[0].start_ns
    images = [
        image_cdr(first + n, np.full((24, 32, 3), value, dtype=np.uint8))
        for n, value in ((0, 0), (2, 20), (1, 10), (2, 99), (3, 30), (1, 88))
    ]
    found = load_frames(write_bag(tmp_path / "bag", schedule, images), size=SIZE, cache_dir=tmp_path / "cache")
    assert found.details is not None
    for chosen in ([0, 1], [2], [3], [1, 2], [0, 1, 2, 3]):
        pixels = found.details.read(np.array(chosen))
        assert pixels[:, 0, 0, 0].tolist() == [10 * n for n in chosen]


def test_pixels_of_a_bag_that_has_changed_are_refused(
    tmp_path: Path, recorded: tuple[Path, Schedule], frames: FrameSet
) -> None:
    cut = int(frames.stamps_ns[300])
    bag = rewrite(
        recorded[0],
        tmp_path / "bag",
        lambda topic, t, data: None if topic == TOPICS["image"] and t >= cut else data,
    )
    details = BagPixels(bag, TOPICS["image"], frames.stamps_ns, frames.camera_size, frames.region)
    with pytest.raises(BagError, match=rf"bag: the image stamped {frames.stamps_ns[310]} ns is no longer there"):
        details.read(np.array([0, 310, 320]))
    assert_resized(frames.images[[1]], details.read(np.array([1])))
    other = BagPixels(recorded[0], TOPICS["image"], frames.stamps_ns, (32, 24), frames.region)
    with pytest.raises(BagError, match="change their size"):
        other.read(np.array([0]))


def test_reading_a_bag_holds_few_full_images_at_a_time(
    tmp_path: Path, recorded: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[NDArray[np.uint8]]] = []
    most = 0
    decode = bag_images.decode_image

    def spy(cdr: bytes, compressed: bool, source: str) -> tuple[int, NDArray[np.uint8]]:
        nonlocal most
        stamp_ns, image = decode(cdr, compressed, source)
        seen.append(weakref.ref(image))
        most = max(most, sum(reference() is not None for reference in seen))
        return stamp_ns, image

    monkeypatch.setattr(bag_images, "decode_image", spy)
    assert len(load_frames(recorded[0], size=SIZE, cache_dir=tmp_path)) == 400
    assert 0 < most < 40


def peak_memory(bag: Path, cache: Path, schedule: Schedule) -> int:
    """Most bytes that Python and NumPy hold while a bag's frames are built; mapped files do not count."""
    tracemalloc.start()
    try:
        load_frames(bag, size=SIZE, cache_dir=cache, schedule=schedule)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_bag(tmp_path: Path, recorded: tuple[Path, Schedule]) -> None:
    schedule = recorded[1]
    first = START_NS + schedule.segments[0].start_ns
    grey = np.full((480, 640, 3), 90, dtype=np.uint8)
    short, long = (
        write_bag(tmp_path / f"bag{count}", schedule, [image_cdr(first + number, grey) for number in range(count)])
        for count in (30, 100)
    )
    assert np.isfinite(schedule.log_commanded).all()  # computed once, before memory is watched
    peaks = [peak_memory(bag, tmp_path / "cache", schedule) for bag in (short, long)]
    assert peaks[1] - peaks[0] < 70 * grey.nbytes / 5


def test_the_commanded_box_is_that_of_the_schedule(recorded: tuple[Path, Schedule], frames: FrameSet) -> None:
    joints = recorded[1].joints
    assert frames.home.tolist() == [joint.home for joint in joints] == [0.1, 0.1]
    assert frames.half_range.tolist() == [joint.half_range for joint in joints] == [1.2, 1.2]
    assert frames.description()["home"] == [0.1, 0.1] and frames.description()["half_range"] == [1.2, 1.2]


def test_bags_that_cannot_be_learned_from_say_why(tmp_path: Path, recorded: tuple[Path, Schedule]) -> None:
    path, schedule = recorded
    cache = tmp_path / "cache"
    stamp = START_NS + schedule.segments[0].start_ns
    pixels = np.zeros((24, 32, 3), dtype=np.uint8)
    outside = write_bag(tmp_path / "outside", schedule, [image_cdr(5, pixels)])
    with pytest.raises(BagError, match=r"none of its 1 frames is in a regime.*use_sim_time"):
        load_frames(outside, size=SIZE, cache_dir=cache)
    odd = write_bag(tmp_path / "odd", schedule, [image_cdr(stamp, pixels, "yuv420")])
    with pytest.raises(BagError, match=r"odd: /camera/image_raw: .*'yuv420'"):
        load_frames(odd, size=SIZE, cache_dir=cache)
    short = write_bag(tmp_path / "short", schedule, [image_cdr(stamp, pixels)[:200]])
    with pytest.raises(BagError, match=r"short: /camera/image_raw: .*cut short"):
        load_frames(short, size=SIZE, cache_dir=cache)
    changing = [image_cdr(stamp, pixels), image_cdr(stamp + 1, np.zeros((48, 64, 3), dtype=np.uint8))]
    with pytest.raises(BagError, match=r"change their size \(32x24, 64x48\)"):
        load_frames(write_bag(tmp_path / "changing", schedule, changing), size=SIZE, cache_dir=cache)
    with pytest.raises(BagError, match=r"images are 64x48, 128x96 was asked for"):
        load_frames(path, size=(128, 96), cache_dir=cache)
    with pytest.raises(BagError, match=r"/joint_states is of type sensor_msgs/msg/JointState, the image topic"):
        load_frames(path, size=SIZE, cache_dir=cache, topics={"image": "/joint_states"})
    with pytest.raises(BagError, match=r"/joint_states is of type .*, the regime topic is of diagnostic_msgs"):
        load_frames(path, size=SIZE, cache_dir=cache, topics={"regime": "/joint_states"})
    with pytest.raises(BagError, match=r"/camera/image_raw is of type sensor_msgs/msg/Image, the joint_states topic"):
        load_truth(path, np.array([stamp]), topics={"joint_states": "/camera/image_raw"})
    zero = write_bag(tmp_path / "zero", schedule, 7 * [image_cdr(0, pixels)])
    with pytest.raises(BagError, match=r"none of its 1 frames is in a regime \(6 more images repeat a stamp"):
        load_frames(zero, size=SIZE, cache_dir=cache)
    assert len(list(cache.iterdir())) == 2  # what the bags that could be read left; failures leave nothing


def test_the_schedule_must_be_the_one_that_was_commanded(
    tmp_path: Path, recorded: tuple[Path, Schedule]
) -> None:
    path, schedule = recorded
    other = write_synthetic_bag(tmp_path / "other", frames=20, seed=99)
    with pytest.raises(BagError, match="name the schedule that the commander ran"):
        load_frames(path, size=SIZE, cache_dir=tmp_path / "cache", schedule=other)
    altered = rewrite(path, tmp_path / "altered", lambda _, __, data: data, schedule_yaml=other.to_yaml())
    with pytest.raises(BagError, match="it was altered"):
        load_frames(altered, size=SIZE, cache_dir=tmp_path / "cache")
    without = rewrite(
        path, tmp_path / "without", lambda _, __, data: data, schedule_yaml=None, schedule_hash=None
    )
    with pytest.raises(BagError, match="holds no schedule"):
        load_frames(without, size=SIZE, cache_dir=tmp_path / "cache")
    found = load_frames(without, size=SIZE, cache_dir=tmp_path / "cache", schedule=schedule)
    assert np.array_equal(found.labels, schedule.labels_at(found.stamps_ns - START_NS))


def test_a_bag_from_elsewhere_needs_topics_schedule_and_start(
    tmp_path: Path, recorded: tuple[Path, Schedule], frames: FrameSet
) -> None:
    path, schedule = recorded
    with (
        open_bag(path) as bag,
        Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer,
    ):
        connection = writer.add_connection("/cam0", "sensor_msgs/msg/Image", typestore=typestore)
        for entry in bag.messages([TOPICS["image"]]):
            writer.write(connection, entry.log_time_ns, entry.data)
    with pytest.raises(BagError, match=r"no topic /ropes/regime.*--topic regime=NAME"):
        load_frames(
            tmp_path / "bag", size=SIZE, cache_dir=tmp_path, topics={"image": "/cam0"}, schedule=schedule
        )
    found = load_frames(
        tmp_path / "bag",
        size=SIZE,
        cache_dir=tmp_path,
        topics={"image": "/cam0"},
        schedule=schedule,
        schedule_start_ns=START_NS,
    )
    assert np.array_equal(found.images, frames.images)
    assert np.array_equal(found.labels, frames.labels)


def long_frames(seconds: float, *, seed: int = 0, joints: int = 3) -> FrameSet:
    """Frames without images: segments of 1 to 2.5 s a joint at 30 frames a second."""
    rng = np.random.default_rng(seed)
    stamps = START_NS + np.arange(int(seconds * 30), dtype=np.int64) * FRAME_PERIOD_NS
    labels = np.full((len(stamps), joints), -1, dtype=np.int16)
    segments = np.full((len(stamps), joints), -1, dtype=np.int32)
    number = 0
    for joint in range(joints):
        start = 0.0
        while start < seconds:
            end = start + rng.uniform(1.0, 2.5)
            rows = slice(int(start * 30), int(end * 30))
            labels[rows, joint], segments[rows, joint] = rng.integers(8), number
            start, number = end + 0.4, number + 1
    nothing = np.zeros(0)
    return FrameSet(
        np.zeros((0, 1, 1, 3), dtype=np.uint8), stamps, labels, segments, ("a", "b", "c")[:joints],
        tuple("01234567"), nothing, nothing, 0.1, "stick", "", (1, 1), Region(0, 0, 1, 1), "", 0,
    )  # fmt: skip


def test_spans_are_contiguous_and_no_segment_is_shared() -> None:
    frames = long_frames(900.0)
    split = split_spans(frames, span_s=30.0, seed=1)
    use = np.full(len(frames), -1)
    for number, part in enumerate((split.train, split.validation, split.calibration)):
        assert (np.diff(part) > 0).all() and (use[part] == -1).all()
        use[part] = number
    kept = split.labels >= 0
    for joint in range(3):
        for segment in np.unique(frames.segments[kept[:, joint], joint]):
            rows = kept[:, joint] & (frames.segments[:, joint] == segment)
            assert len(np.unique(use[rows])) == 1
            assert np.array_equal(rows, frames.segments[:, joint] == segment)  # kept whole or not at all
    assert np.array_equal(split.labels[kept], frames.labels[kept])
    changes = np.flatnonzero(np.diff(use[use >= 0]))
    assert len(changes) < 30
    span = (frames.stamps_ns - frames.stamps_ns[0]) // 30_000_000_000
    for number in np.unique(span):
        assert len(np.unique(use[(span == number) & (use >= 0)])) == 1


def test_labels_are_dropped_on_both_sides_of_a_boundary_and_nowhere_else() -> None:
    frames = long_frames(900.0)
    split = split_spans(frames, span_s=30.0, seed=1)
    dropped = (frames.labels >= 0) & (split.labels < 0)
    assert dropped.any()
    rows, joints = np.nonzero(dropped)
    elapsed = frames.stamps_ns[rows] - frames.stamps_ns[0]
    from_boundary = np.abs(elapsed - 30_000_000_000 * np.round(elapsed / 30e9))
    assert from_boundary.max() < 2_600_000_000
    for joint in range(3):
        of_joint = rows[joints == joint]
        sides = (frames.stamps_ns[of_joint] - frames.stamps_ns[0]) / 30e9 % 1 < 0.5
        assert sides.any() and not sides.all()


def test_fractions_are_about_right_and_the_seed_decides() -> None:
    frames = long_frames(1800.0)
    split = split_spans(frames, span_s=20.0, fractions=(0.7, 0.2, 0.1), seed=5)
    total = sum(len(part) for part in split[:3])
    assert total > 0.9 * len(frames)
    for part, fraction in zip(split[:3], (0.7, 0.2, 0.1), strict=True):
        assert len(part) / total == pytest.approx(fraction, abs=0.02)
    again, other = (split_spans(frames, span_s=20.0, fractions=(0.7, 0.2, 0.1), seed=seed) for seed in (5, 6))
    for one, two in zip(split, again, strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(split.validation, other.validation)


def test_short_recordings_get_shorter_spans_and_too_short_ones_an_error() -> None:
    split = split_spans(long_frames(60.0), span_s=30.0, seed=0)
    assert min(len(part) for part in split[:3]) > 30
    with pytest.raises(TrainingError, match="too short"):
        split_spans(long_frames(1.0), span_s=30.0, seed=0)
    with pytest.raises(TrainingError, match="sum to 1"):
        split_spans(long_frames(60.0), fractions=(0.5, 0.1, 0.1))



def test_truth_is_what_the_robot_reported_in_the_robots_order(recorded: tuple[Path, Schedule]) -> None:
    path, schedule = recorded
    robot = stick_robot(path.with_suffix(".robot"))
    stamps = START_NS + np.array([3_000_000_000, 5_123_456_789, 7_000_000_000], dtype=np.int64)
    expected = positions_of(robot, schedule, stamps)
    assert load_truth(path, stamps) == pytest.approx(expected, abs=2e-3)
    swapped = load_truth(path, stamps, joint_names=("joint2", "joint1"))
    assert np.array_equal(swapped, load_truth(path, stamps)[:, ::-1])


def test_truth_merges_partial_states_and_refuses_gaps(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", robot="stick") as writer:
        writer.add_topic(TOPICS["joint_states"], "sensor_msgs/msg/JointState")
        for time_ns in range(0, 1_000_000_000, 100_000_000):
            writer.write(
                TOPICS["joint_states"], joint_states_cdr(time_ns, ("b",), np.array([time_ns / 1e9])), time_ns
            )
            state = joint_states_cdr(time_ns, ("c", "a"), np.array([9.0, -time_ns / 1e9]))
            writer.write(TOPICS["joint_states"], state, time_ns)
    stamps = np.array([250_000_000, 40_000_000], dtype=np.int64)
    assert load_truth(tmp_path / "bag", stamps, joint_names=("a", "b")) == pytest.approx(
        np.array([[-0.25, 0.25], [-0.04, 0.04]])
    )
    with pytest.raises(BagError, match=r"no position of joint z; it has a, b, c"):
        load_truth(tmp_path / "bag", stamps, joint_names=("a", "z"))
    with pytest.raises(BagError, match=r"1 of 1 frames have no joint states within 0\.25 s"):
        load_truth(tmp_path / "bag", np.array([3_000_000_000]), joint_names=("a",))


def test_times_without_joint_states_have_no_truth(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", robot="stick") as writer:
        writer.add_topic(TOPICS["joint_states"], "sensor_msgs/msg/JointState")
        for time_ns in (0, 100_000_000, 900_000_000, 1_000_000_000):
            writer.write(TOPICS["joint_states"], joint_states_cdr(time_ns, ("a",), np.array([1.0])), time_ns)
    stamps = np.array([50_000_000, 500_000_000, 950_000_000], dtype=np.int64)
    truth = load_truth(tmp_path / "bag", stamps, joint_names=("a",))
    assert np.array_equal(truth, [[1.0], [np.nan], [1.0]], equal_nan=True)
    with pytest.raises(BagError, match="2 of 3 frames have no joint states"):
        load_truth(tmp_path / "bag", np.array([0, 500_000_000, 600_000_000]), joint_names=("a",))


@pytest.mark.parametrize("size", [0, 10, 2000])
def test_a_damaged_cache_entry_is_made_anew(
    tmp_path: Path, recorded: tuple[Path, Schedule], frames: FrameSet, size: int
) -> None:
    load_frames(recorded[0], size=SIZE, cache_dir=tmp_path)
    (index,) = tmp_path.glob("*/index.npz")
    index.write_bytes(index.read_bytes()[:size])
    assert_same(load_frames(recorded[0], size=SIZE, cache_dir=tmp_path), frames)
    assert len(list(tmp_path.iterdir())) == 1


def test_densities_that_vanish_somewhere_are_refused(
    tmp_path: Path, recorded: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Schedule, "log_commanded", np.full((2, 8, 257), -np.inf))
    with pytest.raises(BagError, match="densities are zero somewhere"):
        load_frames(recorded[0], size=SIZE, cache_dir=tmp_path)


def test_truth_needs_joint_states(tmp_path: Path) -> None:
    write_synthetic_bag(tmp_path / "bag", frames=10, with_joint_states=False)
    with pytest.raises(BagError, match="no message was recorded on /joint_states"):
        load_truth(tmp_path / "bag", np.array([START_NS]))
