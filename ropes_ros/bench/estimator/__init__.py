"""`ropes bench estimator`: what the estimator node takes in time and costs, beside a bare inference and a plain node.

`runs.py` starts the processes, `watcher.py` listens to them, `figures.py` makes figures of what was heard; `camera.py`,
`floor.py`, `peer.py` and `slow.py` are the processes; `models.py` makes the model and the pictures for a camera's size.
"""
