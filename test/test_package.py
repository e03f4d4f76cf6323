"""The package's files agree with each other: names, versions, dependencies, executables, parameters, imports."""

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from ropes_ros import __version__
from ropes_ros.paths import share_dir
from ropes_ros.processes import has_ros

ROOT = Path(__file__).resolve().parent.parent
NODES = ("sim_arm", "commander", "recorder", "estimator")
ROS_ONLY = {"rclpy", "launch", "launch_ros", "lifecycle_msgs", "diagnostic_updater"}
HEAVY = {
    "torch": {"learning", "export.py"},
    "mujoco": {"sim"},
    "cyclonedds": {"standalone"},
}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


def sources() -> list[Path]:
    """The package's modules, relative to it."""
    package = ROOT / "ropes_ros"
    return sorted(path.relative_to(package) for path in package.rglob("*.py"))


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def setup_call() -> dict[str, ast.expr]:
    """Keyword arguments of setup.py's setup()."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup":
            return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    raise AssertionError("setup.py does not call setup")


def test_one_version_everywhere(manifest: ElementTree.Element) -> None:
    assert manifest.findtext("version") == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_package_is_of_build_type_ament_python_with_its_marker(manifest: ElementTree.Element) -> None:
    assert manifest.get("format") == "3"
    assert manifest.findtext("export/build_type") == "ament_python"
    assert (ROOT / "resource" / str(manifest.findtext("name"))).is_file()


def test_every_ros_package_that_is_imported_is_declared(manifest: ElementTree.Element) -> None:
    declared = {element.text for element in manifest.findall("exec_depend")}
    used = {name for path in sources() for name in imported(ROOT / "ropes_ros" / path)}
    used |= {name for path in (ROOT / "launch").glob("*.py") for name in imported(path)}
    messages = {name for name in used if name.endswith(("_msgs", "_srvs", "_interfaces"))}
    assert messages | (used & ROS_ONLY) <= declared
    undeclared_use = {name for name in declared if name and name.endswith(("_msgs", "_srvs"))} - messages
    assert not undeclared_use, "declared, but nothing imports them"


@pytest.mark.parametrize("package", sorted(HEAVY))
def test_heavy_packages_are_imported_only_where_they_belong(package: str) -> None:
    strays = [
        path
        for path in sources()
        if path.parts[0] not in HEAVY[package] and package in imported(ROOT / "ropes_ros" / path)
    ]
    assert not strays


def test_importing_the_package_or_its_command_imports_nothing_heavy() -> None:
    script = "import sys, ropes_ros, ropes_ros.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"torch", "mujoco", "cyclonedds", "rclpy", "onnxruntime", "pinocchio", "cv2", "rosbags", "numpy"}
    assert not heavy & set(done.stdout.split())


def test_ros2_run_and_pip_find_one_executable_per_node(setup_call: dict[str, ast.expr]) -> None:
    scripts = ast.literal_eval(setup_call["entry_points"])["console_scripts"]
    targets = dict(entry.split(" = ") for entry in scripts)
    assert set(targets) == {"ropes", *NODES}
    for target in targets.values():
        module, function = target.split(":")
        path = ROOT / module.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(source.read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, target


@pytest.mark.parametrize("node", NODES)
def test_an_executable_runs_its_node_under_the_runtime_that_is_there(node: str, tmp_path: Path) -> None:
    if not has_ros():
        pytest.importorskip("cyclonedds")
    if node == "sim_arm":
        pytest.importorskip("mujoco")
    run = [sys.executable, "-c", f"import sys; from ropes_ros.run import {node}; sys.exit({node}())"]
    arguments = ["--ros-args", "-p", "robot:=no_such_robot", "-p", "model:=m", "-p", "path:=b", "-p", "schedule:=s"]
    if has_ros():
        done = subprocess.run([*run, "--ros-args", "-p", "robot:=[1"], capture_output=True, text=True, timeout=60)
    else:
        done = subprocess.run([*run, *arguments], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert "error: " in done.stderr, done.stderr
    assert done.returncode != 0
    assert "ModuleNotFoundError" not in done.stderr


def test_an_executable_without_any_runtime_says_what_to_install() -> None:
    if has_ros():
        pytest.skip("rclpy is there")
    script = (
        "import sys; sys.modules['cyclonedds'] = sys.modules['cyclonedds.core'] = None\n"
        "from ropes_ros.run import estimator; sys.exit(estimator())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("error: neither rclpy nor cyclonedds") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["diagnostic_updater", "tf2_msgs.msg"])
def test_an_executable_that_lacks_a_ros_package_says_how_to_install_it(missing: str) -> None:
    script = (
        "import sys, ropes_ros.run as run\n"
        "def refuse(name): raise ModuleNotFoundError(name=sys.argv[1])\n"
        "run.has_ros, run.importlib.import_module = lambda: True, refuse\n"
        "sys.exit(run.estimator())"
    )
    done = subprocess.run([sys.executable, "-c", script, missing], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the ROS package {missing.partition('.')[0]} is missing: run `rosdep install")
    assert done.stderr.count("\n") == 1


def calls(path: Path, function: str) -> list[ast.Call]:
    """Calls of a function, by its bare name, in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function]


def launch_files() -> list[Path]:
    return sorted((ROOT / "launch").glob("*.launch.py"))


def launched(path: Path) -> dict[str, set[str]]:
    """Executable -> launch arguments that a launch file hands on as parameters."""
    return {
        ast.literal_eval(call.args[0]): {ast.literal_eval(key) for key in call.args[1].keys if key is not None}
        for call in calls(path, "lifecycle_node")
        if isinstance(call.args[1], ast.Dict)
    }


def starters() -> list[Path]:
    """Launch files that start nodes of this package themselves."""
    return [path for path in launch_files() if launched(path)]


@pytest.mark.parametrize("path", starters(), ids=lambda path: path.name)
def test_launch_files_declare_and_describe_what_they_hand_on(path: Path) -> None:
    arguments = calls(path, "DeclareLaunchArgument")
    assert all("description" in {keyword.arg for keyword in call.keywords} for call in arguments)
    started = launched(path)
    assert set(started) <= set(NODES)
    assert {ast.literal_eval(call.args[0]) for call in calls(path, "params_argument")} == set(started)
    assert set().union(*started.values()) <= {ast.literal_eval(call.args[0]) for call in arguments}


def test_launch_files_hand_on_only_parameters_that_the_nodes_have() -> None:
    for path in launch_files():
        for node, handed in launched(path).items():
            content = yaml.safe_load((share_dir() / "config" / f"{node}.yaml").read_text(encoding="utf-8"))
            assert handed <= set(content["/**"]["ros__parameters"]), path.name


def test_constraints_pin_every_dependency_for_every_python(setup_call: dict[str, ast.expr]) -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins: dict[str, set[str]] = {}
    for line in text.splitlines():
        match = re.match(r"([\w.-]+)==[\w.+]+(?: ; (.+))?$", line)
        assert match or line.startswith("#"), line
        if match:
            pins.setdefault(match[1].lower(), set()).add(match[2] or "always")
    for markers in pins.values():
        assert markers in (
            {"always"},
            {'python_version == "3.10"'},
            {'python_version >= "3.11"'},
            {'python_version == "3.10"', 'python_version >= "3.11"'},
        )
    source = (ROOT / "setup.py").read_text(encoding="utf-8")
    wanted = set(re.findall(r'"([A-Za-z][\w-]*)>=', source))
    assert len(wanted) > 10
    for name in wanted:
        assert pins[name.lower()] in (
            {"always"},
            {'python_version == "3.10"', 'python_version >= "3.11"'},
        ), name


def test_threads_of_training_wait_asleep_unless_told_otherwise() -> None:
    """What the OpenMP runtime itself says that it was set to, once torch has loaded it."""
    pytest.importorskip("torch")
    for given, wanted in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({} if given is None else {"OMP_WAIT_POLICY": given})
        command = [sys.executable, "-c", "import ropes_ros.learning.train"]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        said = re.search(r"OMP_WAIT_POLICY ?= ?'(\w+)'", done.stdout + done.stderr)
        if said is None:
            pytest.skip("this OpenMP runtime does not tell its settings")
        assert said[1] == wanted


def test_what_the_documents_link_to_is_there() -> None:
    """Relative links and pictures in README and docs/ lead to files of the repository."""
    root = Path(__file__).parents[1]
    broken = [
        f"{document.name}: {target}"
        for document in [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    assert not broken
