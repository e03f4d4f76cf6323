"""Work on one cell: python -m ropes_ros.bench OUT JSON; what `ropes bench accuracy` starts."""

from __future__ import annotations

import sys

from ropes_ros.bench.worker import main

sys.exit(main(sys.argv[1:]))
