#!/bin/bash
# Run a command with ROS, the workspace where there is one, and the environment of pip's packages.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
if [ -f /opt/ropes/install/setup.bash ]; then
    source /opt/ropes/install/setup.bash
fi
source /opt/ropes/venv/bin/activate
# CUDA's libraries, where onnxruntime-gpu brought them as Python packages.
for folder in /opt/ropes/venv/lib/python3*/site-packages/nvidia/*/lib; do
    if [ -d "${folder}" ]; then
        export LD_LIBRARY_PATH="${folder}${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}"
    fi
done
exec "$@"
