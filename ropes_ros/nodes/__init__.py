"""The ROS 2 nodes: thin, idiomatic rclpy; what can be said without ROS lives in the rooms below."""
