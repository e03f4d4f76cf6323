"""Whether a bag is fit to train, in sentences that say what to do."""

from __future__ import annotations

import numpy as np

from ropes_ros.bag_pass import Pictures
from ropes_ros.joint_findings import JointFindings
from ropes_ros.regimes import Schedule
from ropes_ros.stream_watch import Stream

SEEN = 1e-4
"""Share of the image, for such a move, from which a joint counts as visible."""
FEW_SEGMENTS, ENOUGH_SEGMENTS = 3, 10
"""Segments a level: fewer make a level unusable; as many are asked for."""
FAR = 0.1
"""Total variation between designed and commanded occupancy, beyond what chance explains, that is told."""
LITTLE, MUCH = 0.02, 0.05
"""Shares of lost and of repeated images that are told."""
BURNT = 0.25
"""Share of pixels at the ends of the range that is told."""
DARK, BRIGHT = 25.0, 230.0
DRIFT = 8.0
"""Change of the still background's brightness over the recording, in grey levels, that is told."""
SLOW_PPM = 500.0
"""Drift between stamps and log times that is told."""


def judge(
    streams: tuple[Stream, ...],
    image_topic: str | None,
    pictures: Pictures | None,
    plan: Schedule | None,
    joints: tuple[JointFindings, ...],
    labelled: int,
    seconds: float,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What makes a bag unfit to train, and what is weak: a sentence each.

    Args:
        streams: Its topics.
        image_topic: The topic of its images; None where it is not known.
        pictures: Its images; None without two that could be read.
        plan: What was designed; None where it is not known.
        joints: What is known of each joint; empty without a schedule.
        labelled: Images in a regime of any joint.
        seconds: Length of the bag.

    Returns:
        Faults and warnings.
    """
    faults: list[str] = []
    warnings: list[str] = []
    for stream in streams:
        if stream.jumps:
            warnings.append(
                f"{stream.name}: stamp and log time jumped apart {stream.jumps} times: a clock was set while recording"
            )
        if stream.unstamped and stream.name != image_topic:
            warnings.append(f"{stream.name}: {stream.unstamped} of {stream.count} messages are not stamped")
        if stream.damaged and stream.name != image_topic:
            warnings.append(f"{stream.name}: {stream.damaged} of {stream.count} messages cannot be read")
        if abs(stream.drift_ppm) > SLOW_PPM:
            warnings.append(
                f"{stream.name}: its stamps drift by {stream.drift_ppm:.0f} ppm against the recorder's clock: "
                "synchronise the clocks (chrony, PTP)"
            )
    if pictures is None:
        faults.append(
            "there are no two images that could be read"
            + (": name the image topic (--topic image=NAME)" if image_topic is None else f" on {image_topic}")
        )
    else:
        image = next(stream for stream in streams if stream.name == image_topic)
        _judge_images(image, pictures, faults, warnings)
        others = [s for s in streams if s.type_name != image.type_name and np.isfinite(s.offset_s) and s.count > 10]
        for other in others:
            if other.type_name.endswith(("JointState", "CameraInfo")) and abs(other.offset_s - image.offset_s) > 1.0:
                warnings.append(
                    f"stamps of {image.name} and {other.name} lie {abs(other.offset_s - image.offset_s):.1f} s apart "
                    "when they are recorded together: are both of one clock (use_sim_time)?"
                )
    if plan is None:
        faults.append("no schedule is known: give --schedule FILE, or make an intervention bag by `ropes import`")
    elif pictures is not None and not labelled:
        faults.append("no image lies in a regime: were camera and commander on one clock, and did the commander run?")
    elif pictures is not None and plan is not None:
        for joint in joints:
            _judge_joint(joint, plan, seconds, faults, warnings)
    return tuple(faults), tuple(warnings)


def _judge_images(image: Stream, pictures: Pictures, faults: list[str], warnings: list[str]) -> None:
    if len(pictures.sizes) > 1 or len(pictures.encodings) > 1:
        said = ", ".join(f"{width}x{height}" for width, height in pictures.sizes)
        kinds = ", ".join(pictures.encodings)
        faults.append(f"images change their size or encoding ({said}; {kinds}): record with one")
    if pictures.damaged:
        faults.append(
            f"{pictures.damaged} of {image.count} images cannot be read ({pictures.damage}): mend what publishes them; "
            "`ropes import` leaves out those that are cut off"
        )
    if image.unstamped:
        faults.append(
            f"{image.unstamped} of {image.count} images are not stamped: the camera's driver must stamp each with its "
            "time, or it is in no regime"
        )
    lost = max(image.missing or 0, image.dropped or 0)
    if lost > LITTLE * image.count:
        warnings.append(f"{lost} images are missing beside {image.count}: lower the rate, or record to a faster disk")
    if pictures.repeated > MUCH * pictures.count:
        warnings.append(
            f"{pictures.repeated} of {pictures.count} images equal the one before: the camera is slower than its topic"
        )
    if image.backward:
        warnings.append(f"{image.backward} images are stamped no later than the one before")
    if max(pictures.dark, pictures.bright) > BURNT:
        warnings.append(
            f"{pictures.dark:.0%} of the pixels are black and {pictures.bright:.0%} white: set the exposure"
        )
    elif not DARK < pictures.brightness[0] < BRIGHT:
        warnings.append(f"the mean grey level is {pictures.brightness[0]:.0f} of 255: set the exposure")
    if pictures.changes.max() < 1.0:
        faults.append("nothing moves in the images: is the robot in view, and did it move?")
    if abs(pictures.background_change) > DRIFT:
        warnings.append(
            f"the still background changes by {pictures.background_change:+.0f} grey levels from start to end: "
            "harmless where the levels are spread over the recording; fix exposure and white balance, and the light"
        )


def _judge_joint(
    joint: JointFindings, plan: Schedule, seconds: float, faults: list[str], warnings: list[str]
) -> None:
    if not joint.frames.any():
        warnings.append(f"joint {joint.name} is never in a regime: it will not be learned")
        return
    few = [level for level, held in zip(plan.levels.ids, joint.segments, strict=True) if held < FEW_SEGMENTS]
    least = int(joint.segments.min())
    if few:
        more = seconds * (ENOUGH_SEGMENTS / max(1, least) - 1.0) / 60.0
        faults.append(
            f"joint {joint.name}: level{'s' if len(few) > 1 else ''} {', '.join(few)} held in fewer than "
            f"{FEW_SEGMENTS} segments: record some {max(1.0, more):.0f} min more"
        )
    elif least < ENOUGH_SEGMENTS:
        more = seconds * (ENOUGH_SEGMENTS / least - 1.0) / 60.0
        warnings.append(
            f"joint {joint.name}: {least} segments at its rarest level: {max(1.0, more):.0f} min more would give "
            f"{ENOUGH_SEGMENTS}"
        )
    for told, what in ((joint.time, "the time"), (joint.light, "the brightness of the still background")):
        if told.flagged:
            faults.append(
                f"joint {joint.name}: {what} tells {told.share:.0%} of its level beyond chance: levels are not spread "
                "at random over the recording, so that whatever drifts will be taken for the angle; record with a "
                "randomised schedule (`ropes schedule make`)"
            )
    chance = 0.4 / np.sqrt(max(1, int(joint.segments.sum())) / len(joint.segments))
    if joint.commanded_tv > FAR + chance:
        warnings.append(
            f"joint {joint.name}: the commands' occupancy is {joint.commanded_tv:.2f} (total variation) from the "
            "design: the motion was cut short, or the schedule is another"
        )
    if joint.seen_where.size and np.isnan(joint.visible):
        warnings.append(
            f"joint {joint.name}: whether the images show it could not be told: look at the page's picture of where it "
            "is seen (--html)"
        )
    if joint.visible < SEEN:
        faults.append(
            f"joint {joint.name}: hardly anything in the image changes when it moves (about {joint.visible:.2%} of the "
            "pixels for a tenth of its half range): turn the camera, come closer, or leave the joint out"
        )
