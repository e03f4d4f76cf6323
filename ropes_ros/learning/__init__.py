"""Learning from regimes: the only room, with `ropes_ros.export`, that imports torch."""
