"""Label-free learning of a robot's joint angles from camera images, and their online estimation in ROS 2."""

__version__ = "0.1.0"
