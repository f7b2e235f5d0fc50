"""Limits on containment, for the fleet and for operators.

- `guards`: all limits that a step takes into account, and protected devices.
- `blast_radius`: how many devices policies may contain. `waivers`: exceptions from rules.
- `approvals`: how many devices one operator may contain alone.
"""
