"""The ament_python package: what colcon and pip install, and what each part of it needs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "ropes_ros"
HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / NAME / "__init__.py").read_text(), re.MULTILINE)[1]


def tree(*folders):
    """Every file below the folders, as data_files for share/ropes_ros."""
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    paths = [path for path in paths if "__pycache__" not in path.parts]
    return [
        (f"share/{NAME}/{folder.as_posix()}", [path.as_posix() for path in paths if path.parent == folder])
        for folder in sorted({path.parent for path in paths})
    ]


EXTRAS = {
    "sim": ["mujoco>=3.2", "zstandard>=0.22"],
    "robots": ["airo-models>=0.0.12", "trimesh>=4.5", "pycollada>=0.8", "xacro>=2.0"],
    "panda": ["example-robot-data>=5", "trimesh>=4.5", "pycollada>=0.8"],
    "so101": ["robot_descriptions>=1.14"],
    "train": ["torch>=2.5", "onnx>=1.16", "matplotlib>=3.8", "scipy>=1.11"],
    "bench": ["scikit-learn>=1.4"],
    "log": ["tensorboard>=2.16"],
    "import": ["ruptures>=1.1.9", "scipy>=1.11", "matplotlib>=3.8"],
    "lerobot": ["pyarrow>=15"],
    "standalone": ["cyclonedds>=11"],
    "cpu": ["onnxruntime>=1.20"],
    "gpu": ["onnxruntime-gpu>=1.20"],
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "mypy>=1.15",
        "ruff>=0.11",
        "types-PyYAML>=6.0.12",
        "catkin_pkg>=1.0",
    ],
}

setup(
    name=NAME,
    version=VERSION,
    description="Joint angles from camera images, learned from commanded regimes, estimated online in ROS 2",
    license="Apache-2.0",
    maintainer="ropes_ros maintainers",
    maintainer_email="maintainers@ropes-ros.example",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *tree("launch", "config", "models"),
    ],
    zip_safe=False,
    install_requires=[
        "numpy>=1.21",
        "opencv-python>=4.5",
        "PyYAML>=5.4",
        "pin>=4.1",
        "typer>=0.12",
        "rich>=12",
        "mcap>=1.5",
        "rosbags>=0.10.6",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "ropes = ropes_ros.cli:main",
            "sim_arm = ropes_ros.run:sim_arm",
            "commander = ropes_ros.run:commander",
            "recorder = ropes_ros.run:recorder",
            "estimator = ropes_ros.run:estimator",
        ],
    },
)
