"""`ropes bench`: every method, bound and baseline in one table, and the check of the committed models.

This is evaluation's side: it sees true angles, and nothing under `learning/` imports it.
"""
