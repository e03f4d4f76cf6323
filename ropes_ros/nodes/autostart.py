"""Run one lifecycle node that configures and activates itself; its module is the first argument.

Launch files bring the nodes up by lifecycle events; this is for those who start a single node by hand.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from ropes_ros.errors import RuntimeSetupError
from ropes_ros.nodes.common import run


def node_class(module: ModuleType) -> type[LifecycleNode]:
    """The lifecycle node that a module of `ropes_ros.nodes` defines."""
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, LifecycleNode) and value.__module__ == module.__name__:
            return value
    raise RuntimeSetupError(f"{module.__name__} defines no lifecycle node; name a module of ropes_ros.nodes")


def activated(kind: type[LifecycleNode]) -> LifecycleNode:
    """A node of this class in state active.

    Raises:
        RuntimeSetupError: A transition failed; the node has logged why.
    """
    node = kind()
    for trigger in (node.trigger_configure, node.trigger_activate):
        if trigger() != TransitionCallbackReturn.SUCCESS:
            node.destroy_node()
            raise RuntimeSetupError(f"node {kind.__name__.lower()} did not start; its log above says why")
    return node


def main(args: list[str] | None = None) -> int:
    """Run the node whose module is the first argument."""
    module, *rest = sys.argv[1:] if args is None else args
    return run(lambda: activated(node_class(importlib.import_module(module))), rest)


if __name__ == "__main__":
    sys.exit(main())
