"""The command line: help, errors in one line, JSON that a script can read, commands for both runtimes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Writer
from synthetic import stick_robot, typestore, write_synthetic_bag

from ropes_ros import __version__, cli, occupancy, processes
from ropes_ros.bags import TOPICS, open_bag
from ropes_ros.cli import output
from ropes_ros.cli.output import in_words
from ropes_ros.dataset import FrameSet
from ropes_ros.encoder import load_encoder
from ropes_ros.evaluation import evaluate
from ropes_ros.occupancy import BINS
from ropes_ros.progress import Progress
from ropes_ros.regimes import Schedule, make_schedule
from ropes_ros.robot import load_robot

COMMANDS = (
    "schedule", "sim", "record", "estimate", "train", "export", "compare", "evaluate", "recover", "info", "doctor",
    "demo", "top",
)


def ropes(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process: exit status, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["ropes", *arguments])
    try:
        status = cli.main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0
    said = capfd.readouterr()
    return status, said.out, said.err


@pytest.fixture(scope="module")
def schedule_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schedule") / "schedule.yaml"
    make_schedule(load_robot("arm6"), duration_s=60.0, seed=3).save(path)
    return path


def test_help_names_every_command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, _ = ropes(capfd, monkeypatch, "--help")
    assert status == 0
    assert all(f" {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    status, out, _ = ropes(capfd, monkeypatch, command, "--help")
    assert status == 0
    assert f"ropes {command}" in out


def test_version(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert ropes(capfd, monkeypatch, "--version")[:2] == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["info", "nowhere"], "nowhere does not exist"),
        (["recover", "nowhere"], "nowhere"),
        (["schedule", "show", "nowhere.yaml"], "nowhere.yaml"),
        (["schedule", "make", "--robot", "no_such_robot"], "no_such_robot"),
        (["schedule", "make", "--levels", "hats:3"], "--levels hats:3"),
        (["schedule", "make", "--design", "random"], "random"),
        (["train", "nowhere", "--size", "96"], "--size 96"),
        (["train", "nowhere", "--size", "0x0"], "--size 0x0: take at least 16 pixels"),
        (["train", "nowhere", "--topic", "lens=/cam"], "--topic lens=/cam: write ROLE=NAME"),
        (["train", "nowhere", "--schedule", "absent.yaml"], "absent.yaml cannot be read"),
        (["train", "nowhere"], "nowhere"),
        (["train", "nowhere", "--supervision", "commands", "--task", "masked"], "commands is a likelihood"),
        (["train", "nowhere", "--pretrain", "guessing"], "--pretrain guessing: take one of mechanism"),
        (["train", "nowhere", "--constraint", "tight"], "--constraint tight: take one of none"),
        (["train", "nowhere", "--method", "ropes", "--no-refine"], "--no-refine does not go with --method ropes"),
        (["compare", "nowhere", "one.pt"], "one.pt: name two checkpoints or more"),
        (["compare", "nowhere", "one.pt", "two.pt"], "one.pt"),
        (["export", "nowhere.pt", "model"], "nowhere.pt"),
        (["evaluate", "no_model", "no_bag"], "no_model"),
        (["estimate", "camera/image_raw", "--model", "no_model"], "no_model"),
        (["record", ".", "--schedule", "x.yaml"], "never overwritten"),
        (["record", "bag", "--schedule", "x.yaml"], "x.yaml does not exist"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_on_stderr(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] in ("train", "export", "compare"):
        pytest.importorskip("torch")
    status, _, err = ropes(capfd, monkeypatch, *arguments)
    assert status == 1
    assert err.startswith("error: ") and err.count("\n") == 1
    assert part in err


def test_made_schedule_is_saved_and_shown_alike(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "schedule.yaml"
    make = ("schedule", "make", "--minutes", "1", "--seed", "5", "--save", str(path), "--json")
    status, made, _ = ropes(capfd, monkeypatch, *make)
    assert status == 0
    _, shown, _ = ropes(capfd, monkeypatch, "schedule", "show", str(path), "--json")
    content = json.loads(made)
    assert json.loads(shown) == content
    assert content["duration_s"] == 60.0 and content["seed"] == 5 and len(content["levels"]) == 8
    assert content["label_noise_half_ranges"] == pytest.approx(0.164, abs=0.002)
    assert content["segments"] == sum(joint["segments"] for joint in content["joints"])


def test_labelled_share_is_the_one_that_the_schedule_answers(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, schedule_file: Path
) -> None:
    _, out, _ = ropes(capfd, monkeypatch, "schedule", "show", str(schedule_file), "--json")
    schedule = Schedule.load(schedule_file)
    stamps = np.arange(0, schedule.duration_ns, 10_000_000, dtype=np.int64)
    labelled = (schedule.labels_at(stamps) >= 0).mean(axis=0)
    assert [joint["labelled"] for joint in json.loads(out)["joints"]] == pytest.approx(labelled.tolist(), abs=0.01)


def test_commanded_occupancy_follows_the_designed_one(schedule_file: Path) -> None:
    schedule = Schedule.load(schedule_file)
    designed, commanded = occupancy.designed(schedule), occupancy.lawful(schedule)
    assert designed.shape == (8, BINS) and commanded.shape == (6, 8, BINS)
    assert designed.sum(axis=1) == pytest.approx(np.ones(8)) and commanded.sum(axis=2) == pytest.approx(np.ones((6, 8)))
    assert occupancy.total_variation(commanded, designed).max() < 0.025


def test_schedule_is_shown_to_a_person(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, schedule_file: Path
) -> None:
    status, out, _ = ropes(capfd, monkeypatch, "schedule", "show", str(schedule_file))
    assert status == 0
    assert "joint6" in out and "half ranges" in out and "█" in out


def test_nodes_start_under_the_runtime_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"model": "a b", "rate": 30.0, "publish_tf": True}
    monkeypatch.setattr(processes, "has_ros", lambda: False)
    standalone = processes.node_command("estimator", parameters, {"camera": "/cam"})
    assert standalone[1:4] == ["-m", "ropes_ros.standalone", "ropes_ros.nodes.estimator"]
    assert standalone[4:] == [
        "--ros-args", "-p", 'model:="a b"', "-p", "rate:=30.0", "-p", "publish_tf:=true", "-r", "camera:=/cam",
    ]  # fmt: skip
    monkeypatch.setattr(processes, "has_ros", lambda: True)
    assert processes.node_command("sim_arm")[1:] == ["-m", "ropes_ros.nodes.autostart", "ropes_ros.nodes.sim_arm"]


@pytest.mark.parametrize(
    ("commander", "recorder", "expected"),
    [("exit 3", "exec sleep 60", 3), ("kill -KILL $$", "exec sleep 60", 137), ("sleep 60", "kill -TERM $$", 143)],
)
def test_record_ends_with_the_status_of_what_failed_first(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    schedule_file: Path,
    commander: str,
    recorder: str,
    expected: int,
) -> None:
    scripts = {"commander": commander, "recorder": recorder}
    monkeypatch.setattr(cli.live, "node_command", lambda node, *_: ["bash", "-c", scripts[node]])
    arguments = ("record", str(tmp_path / "bag"), "--schedule", str(schedule_file), "--armed")
    assert ropes(capfd, monkeypatch, *arguments)[0] == expected


def test_record_moves_nothing_unless_it_is_armed_and_goes_on_only_where_it_stopped(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, schedule_file: Path
) -> None:
    given: dict[str, dict[str, object]] = {}

    def command(node: str, parameters: dict[str, object], *_: object) -> list[str]:
        given[node] = parameters
        return ["true"] if node == "commander" else ["sleep", "60"]

    monkeypatch.setattr(cli.live, "node_command", command)
    arguments = ("record", str(tmp_path / "bag"), "--schedule", str(schedule_file))
    status, _, err = ropes(capfd, monkeypatch, *arguments)
    assert status == 1 and "--armed" in err and not given
    status, _, err = ropes(capfd, monkeypatch, *arguments, "--armed", "--resume")
    assert status == 1 and "no interrupted run" in err and not given
    progress = Progress(schedule_file.with_name(f"{schedule_file.name}.progress"), Schedule.load(schedule_file).hash)
    progress.note(12_500_000_000)
    ropes(capfd, monkeypatch, *arguments, "--armed")
    assert given["commander"]["armed"] is True and given["commander"]["resume_from"] == 0.0
    ropes(capfd, monkeypatch, *arguments, "--armed", "--resume")
    assert given["commander"]["resume_from"] == 12.5
    assert given["commander"]["progress_file"] == str(progress.path)
    Progress(progress.path, "another").note(1)
    status, _, err = ropes(capfd, monkeypatch, *arguments, "--armed", "--resume")
    assert status == 1 and "another schedule" in err
    progress.forget()


def test_occupancies_are_whole_on_a_narrow_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    robot = load_robot("arm6")
    schedule = make_schedule(robot, duration_s=60.0, seed=3)
    joints = tuple(replace(joint, name=f"left_arm_{joint.name}_with_a_long_name") for joint in schedule.joints)
    replace(schedule, joints=joints).save(tmp_path / "schedule.yaml")
    monkeypatch.setattr(output.console, "_width", 80)
    _, out, _ = ropes(capfd, monkeypatch, "schedule", "show", str(tmp_path / "schedule.yaml"))
    bars = re.findall(r"[ ▁▂▃▄▅▆▇█]{20,}", out)
    assert len([bar for bar in bars if len(bar.strip()) >= BINS - 2]) == 1 + len(joints)
    assert max(len(line) for line in out.splitlines()) <= 80


def test_no_figure_is_cut_on_a_narrow_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output.console, "_width", 40)
    figures = [f"{number}.25 %" for number in range(1000, 1008)]
    output.print_table(["joint", *(f"figure number {number}" for number in range(8))], [("joint1", *figures)] * 2)
    said = capfd.readouterr().out
    assert "…" not in said and all(said.count(figure.split()[0]) == 2 for figure in figures)


SLEEPER = "import time; print('up', flush=True); time.sleep(60)"


def test_leaving_the_group_ends_what_still_runs() -> None:
    with processes.Processes() as group:
        process = group.start([sys.executable, "-c", SLEEPER], output=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
    assert process.returncode == -signal.SIGINT or process.returncode == 1


def test_waiting_ends_when_another_process_fails() -> None:
    with processes.Processes() as group:
        long = group.start([sys.executable, "-c", "import time; time.sleep(60)"])
        group.start([sys.executable, "-c", "raise SystemExit(7)"])
        assert group.wait(long) == 7


def test_waiting_has_an_end() -> None:
    with processes.Processes() as group, pytest.raises(TimeoutError):
        group.wait(group.start([sys.executable, "-c", "import time; time.sleep(60)"]), timeout=0.1)


def test_termination_takes_the_group_down() -> None:
    script = (
        "import sys; from ropes_ros.processes import Processes\n"
        "with Processes() as group:\n"
        f"    child = group.start([sys.executable, '-c', {SLEEPER!r}])\n"
        "    print(child.pid, flush=True)\n"
        "    group.wait(child)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    child = int(next(iter(lines - {"up"})))
    parent.terminate()
    parent.wait(20)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize(("seconds", "words"), [(4.2, "4.2 s"), (200, "3 min 20 s"), (3900, "1 h 5 min")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


# --- a robot that is not bundled, from a bag to estimates ---------------------------------------------------------


@pytest.fixture(scope="module")
def stick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bags of a robot that is not bundled, and its preset."""
    folder = tmp_path_factory.mktemp("stick")
    stick_robot(folder / "robot")
    write_synthetic_bag(folder / "bag", frames=3600, joints=2, seed=1)
    schedule = write_synthetic_bag(folder / "other", frames=900, joints=2, seed=2)
    schedule.save(folder / "other.yaml")
    write_synthetic_bag(folder / "sagging", frames=900, joints=2, seed=2, sag=0.6)
    return folder


def test_a_robot_given_by_its_preset_gets_from_bag_to_estimates(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stick: Path
) -> None:
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.chdir(stick)
    preset = ("--robot", "robot/robot.yaml")
    train = ("train", "bag", "--out", "out", "--epochs", "1", "--size", "32x24", "--cache", "cache", "--json")
    status, _, err = ropes(capfd, monkeypatch, *train)
    assert status == 1 and "unknown robot 'stick'" in err and "--no-refine" in err
    status, out, err = ropes(capfd, monkeypatch, *train, "--no-refine")
    assert status == 0, err
    checkpoint = json.loads(out)["checkpoint"]
    status, _, err = ropes(capfd, monkeypatch, "export", checkpoint, "model")
    assert status == 1 and "unknown robot 'stick'" in err
    status, _, err = ropes(capfd, monkeypatch, "export", checkpoint, "model", *preset)
    assert status == 0, err
    status, out, err = ropes(capfd, monkeypatch, "evaluate", "model", "other", *preset, "--json")
    assert status == 0, err
    figures = json.loads(out)
    assert figures["frames"] == 900 and figures["frames_without_joint_states"] == 0
    assert figures["in_sample"] is False
    assert figures["tracking"]["findings"] == []
    assert all(0.0 < joint["distance_half_ranges"] < 0.25 for joint in figures["tracking"]["joints"])
    _sagging(capfd, monkeypatch, figures["tracking"], preset)
    arm = load_robot("robot/robot.yaml")
    judged = evaluate(load_encoder(Path("model")), Path("other"), arm)
    # A planar arm's tip is turned by the sum of its joints.
    turned = np.degrees(np.abs((judged.estimates.position - judged.truth).sum(axis=1)))
    assert figures["tip_rotation_deg_median"] == pytest.approx(np.median(turned), rel=1e-4)
    status, out, err = ropes(capfd, monkeypatch, "evaluate", "model", "bag", *preset)
    assert status == 0 and "trained on this bag: these figures are in sample" in " ".join(out.split()), err
    status, _, err = ropes(capfd, monkeypatch, "evaluate", "model", "bag", "--robot", "arm6")
    assert status == 1 and "was trained for robot 'stick'" in err
    status, out, err = ropes(capfd, monkeypatch, "estimate", "other", "--model", "model", *preset, "--json")
    assert status == 0, err
    assert json.loads(out)["frames"] == 900
    _foreign(capfd, monkeypatch, stick, preset)


def test_adapting_takes_over_size_and_the_published_method_takes_no_settings_of_ours(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stick: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(stick)
    common = ("--epochs", "1", "--no-refine", "--cache", "cache", "--json")
    first = ("train", "bag", "--out", str(tmp_path / "first"), "--size", "32x24", *common)
    status, out, err = ropes(capfd, monkeypatch, *first)
    assert status == 0, err
    checkpoint = json.loads(out)["checkpoint"]
    adapt = ("train", "bag", "--out", str(tmp_path / "adapted"), "--init", checkpoint, *common)
    status, out, err = ropes(capfd, monkeypatch, *adapt)
    assert status == 0, err
    from ropes_ros.learning.checkpoint import load_checkpoint

    adapted = load_checkpoint(Path(json.loads(out)["checkpoint"]))
    assert adapted["architecture"]["image_size"] == [32, 24]
    constrained = ("train", "bag", "--out", str(tmp_path / "other"), "--size", "32x24", "--epochs", "1")
    status, out, err = ropes(capfd, monkeypatch, *constrained, "--constraint", "independence", "--cache", "cache")
    assert status == 0 and "refinement" not in out, "the second look knows no constraint"
    status, out, err = ropes(capfd, monkeypatch, "compare", "other", checkpoint, str(tmp_path / "adapted"), "--json",
                             "--cache", "cache")
    assert status == 0, err
    compared = json.loads(out)
    assert compared["frames"] > 500
    assert compared["best"] == min(compared["models"], key=lambda model: model["regime_loss"])["checkpoint"]
    other_robot = tmp_path / "three_joints"
    write_synthetic_bag(other_robot, frames=300, joints=3)
    status, _, err = ropes(capfd, monkeypatch, "compare", str(other_robot), checkpoint, str(tmp_path / "adapted"))
    assert status == 1 and "with 2 joints" in err and "three_joints" in err and "Traceback" not in err
    status, _, err = ropes(capfd, monkeypatch, "train", "bag", "--method", "ropes", "--epochs", "3")
    assert status == 1 and "--epochs does not go with --method ropes" in err
    status, _, err = ropes(capfd, monkeypatch, "train", "bag", "--permutation", "found")
    assert status == 1 and "--permutation goes with --method ropes" in err


def _sagging(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    followed: dict[str, list[dict[str, float]]],
    preset: tuple[str, str],
) -> None:
    """A robot that stands 0.6 rad, 0.5 half ranges, beside its commands is told joint by joint."""
    status, out, err = ropes(capfd, monkeypatch, "evaluate", "model", "sagging", *preset, "--json")
    assert status == 0, err
    tracking = json.loads(out)["tracking"]
    assert [joint["name"] for joint in tracking["joints"]] == ["joint1", "joint2"]
    for joint, before in zip(tracking["joints"], followed["joints"], strict=True):
        assert joint["shift_half_ranges"] - before["shift_half_ranges"] == pytest.approx(0.5)
    status, out, err = ropes(capfd, monkeypatch, "evaluate", "model", "sagging", *preset)
    assert status == 0, err
    said = " ".join(out.split())
    assert len(tracking["findings"]) == 2 and all(f"note: {finding}" in said for finding in tracking["findings"])


def test_what_a_model_was_told_goes_with_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stick: Path, tmp_path: Path
) -> None:
    """Measured states are no commands, whatever they are named as; and what a start was told is told of its heirs."""
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    from ropes_ros.encoder import load_encoder
    from ropes_ros.learning.checkpoint import load_checkpoint, save_checkpoint
    from ropes_ros.learning.tasks import LEVELS_ONLY

    monkeypatch.chdir(stick)
    size = ("--epochs", "1", "--size", "32x24", "--cache", "cache", "--json", "--no-refine")
    wrong = ("--supervision", "commands", "--robot", "robot/robot.yaml", "--topic")
    status, _, err = ropes(capfd, monkeypatch, "train", "bag", "-o", "t", *size, *wrong, "joint_command=/joint_states")
    assert status == 1 and "/joint_states holds measured joint states, which nothing may learn from" in err
    status, out, err = ropes(capfd, monkeypatch, "train", "bag", "--out", str(tmp_path / "start"), *size)
    assert status == 0, err
    start = Path(json.loads(out)["checkpoint"])
    content = load_checkpoint(start)
    content["supervision"] = "the commanded positions of /command; no measured pose"
    with open_bag("other") as other:
        content["bags"] = [other.content_hash()]
    save_checkpoint(start, {key: value for key, value in content.items() if key != "version"})
    adapt = ("train", "bag", "--out", str(tmp_path / "heir"), "--init", str(start), *size)
    status, out, err = ropes(capfd, monkeypatch, *adapt)
    assert status == 0, err
    preset = ("--robot", "robot/robot.yaml")
    heir = json.loads(out)["checkpoint"]
    assert ropes(capfd, monkeypatch, "export", heir, str(tmp_path / "model"), *preset)[0] == 0
    told = f"{LEVELS_ONLY}; started from a model that was told: {content['supervision']}"
    assert load_encoder(tmp_path / "model").info.supervision == told
    assert told in (tmp_path / "model" / "card.md").read_text()
    status, out, _ = ropes(capfd, monkeypatch, "info", str(tmp_path / "model"))
    assert status == 0 and "the commanded positions of /command" in " ".join(out.split())
    status, out, err = ropes(capfd, monkeypatch, "evaluate", str(tmp_path / "model"), "other", *preset)
    said = " ".join(out.split())
    assert status == 0 and "trained on this bag" in said and "the commanded positions of /command" in said, err
    status, _, err = ropes(capfd, monkeypatch, *adapt, "--supervision", "commands", *preset, "--resume")
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1


def test_a_preset_of_another_robot_is_refused_before_training(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stick: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(stick)
    monkeypatch.setattr("ropes_ros.learning.pipeline.train", None)
    train = ("train", "bag", "--out", str(tmp_path / "t"), "--size", "32x24", "--cache", "cache", "--robot")
    status, _, err = ropes(capfd, monkeypatch, *train, "arm6")
    assert status == 1 and "the recording is of joints joint1, joint2, the preset of 'arm6' has joint1, joint2, " in err
    preset = (stick / "robot" / "robot.yaml").read_text()
    assert "half_range: 1.2" in preset
    (stick / "robot" / "narrow.yaml").write_text(preset.replace("half_range: 1.2", "half_range: 0.9", 1))
    status, _, err = ropes(capfd, monkeypatch, *train, "robot/narrow.yaml")
    assert status == 1 and "joint1: half_range is 0.9 in the preset of 'stick', 1.2 was commanded" in err


def _foreign(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stick: Path, preset: tuple[str, str]
) -> None:
    """The same bag under other topic names, without header, and with joint states for its first part alone."""
    renamed = {TOPICS["image"]: "/cam0", TOPICS["joint_states"]: "/js", TOPICS["regime"]: "/r"}
    with open_bag(stick / "other") as bag, Writer(stick / "foreign", version=9) as writer:
        middle = bag.start_ns + (bag.end_ns - bag.start_ns) * 3 // 4
        connections = {
            name: writer.add_connection(renamed[name], topic.type_name, typestore=typestore)
            for name, topic in bag.topics.items()
            if name in renamed
        }
        for entry in bag.messages(list(renamed)):
            if entry.topic != TOPICS["joint_states"] or entry.log_time_ns < middle:
                writer.write(connections[entry.topic], entry.log_time_ns, entry.data)
    topics = ("--topic", "image=/cam0", "--topic", "joint_states=/js")
    status, _, err = ropes(capfd, monkeypatch, "evaluate", "model", "foreign", *preset)
    assert status == 1 and "--topic image=NAME" in err
    status, out, err = ropes(capfd, monkeypatch, "evaluate", "model", "foreign", *preset, *topics, "--json")
    assert status == 0, err
    figures = json.loads(out)
    assert figures["frames"] + figures["frames_without_joint_states"] == 900
    assert figures["tracking"] is None  # the bag holds no schedule
    assert 200 < figures["frames_without_joint_states"] < 240
    status, out, err = ropes(capfd, monkeypatch, "estimate", "foreign", "-m", "model", *preset, *topics[:2], "--json")
    assert status == 0 and json.loads(out)["frames"] == 900, err
    train = ("train", "foreign", "--out", "out2", "--epochs", "1", "--size", "32x24", "--cache", "cache")
    roles = ("--topic", "image=/cam0", "--topic", "regime=/r")
    status, _, err = ropes(capfd, monkeypatch, *train, *roles)
    assert status == 1 and "--schedule FILE" in err
    frames: list[FrameSet] = []
    monkeypatch.setattr("ropes_ros.learning.pipeline.learn", lambda given, *_, **__: frames.append(given))
    with pytest.raises(AttributeError):  # there is no result
        ropes(capfd, monkeypatch, *train, *roles, "--schedule", "other.yaml", "--no-refine")
    assert len(frames[0]) == 900 and (frames[0].labels >= 0).mean() > 0.4


def test_a_folder_that_cannot_be_written_is_told_before_frames_are_loaded(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stick: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr("ropes_ros.dataset.load_frames", None)
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    status, _, err = ropes(capfd, monkeypatch, "train", str(stick / "bag"), "--out", str(tmp_path / "t"))
    assert status == 1 and err.startswith("error: ") and "no file can be written there" in err
