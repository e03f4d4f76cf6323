"""The recorder measured: throughput and loss beside the disk's floor and a plain writer, and what a kill costs.

`runs` makes the recordings, `kills` kills the node, `targets` judges.
"""
