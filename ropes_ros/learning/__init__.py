"""From frames and regimes to a trained, calibrated encoder. The only room, besides export, that knows torch.

Its threads wait asleep. By default they wait in a loop, and where others keep the cores busy that costs whole time
slices at every small product.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported, which is after this package
