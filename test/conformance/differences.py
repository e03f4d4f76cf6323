"""Where the standalone runtime differs from ROS 2's rclpy on purpose: names, and what docs/standalone.md says."""

from __future__ import annotations

DIFFERENCES: dict[str, str] = {
    "lifecycle-autostart": (
        "Spinning configures and activates lifecycle nodes; `-p autostart:=false` leaves that to the lifecycle "
        "services. If the node refuses or fails, spin raises `LifecycleError` and the process ends with status 1."
    ),
    "destroying-shuts-down": (
        "`destroy_node` deactivates and shuts a lifecycle node down, so that `on_shutdown` always runs."
    ),
    "transition-callback-without-answer": (
        "A transition callback that does not return a `TransitionCallbackReturn` counts as ERROR, and is logged; rclpy "
        "raises `AttributeError`."
    ),
    "transition-that-is-not-allowed": (
        "`change_state` with a number that the state does not allow answers `success: false`; rclpy raises in the "
        "node's spin."
    ),
    "signals-let-callbacks-finish": (
        "With `rclpy.init()`'s own handlers SIGINT and SIGTERM end `spin` after the running callback; a second signal "
        "interrupts it. In rclpy the first does."
    ),
    "publishing-after-shutdown": "Publishing still works after `rclpy.shutdown()`, until the node is destroyed.",
    "spin-once": "`spin_once` runs every source that is ready once; rclpy runs one callback.",
    "undeclared-on-the-command-line": (
        "A parameter on the command line that no node declares is an error when spinning begins (`-p cuont:=1`: did "
        "you mean `count`?). Parameter files may hold parameters that a node does not have, as in ROS 2."
    ),
    "command-line-wins": (
        "`-p name:=value` overrides all files before it. In ROS 2 a section that names the node wins over it where the "
        "file also has a `/**` section."
    ),
    "node-prefix-in-any-namespace": (
        "`-p node:name:=value` is for nodes of that name in any namespace; in ROS 2 for the one in the root namespace."
    ),
}
