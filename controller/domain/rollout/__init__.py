"""Rollouts of updates, ring by ring.

- `model`: the values. `lifecycle`: the state of a rollout. `member`: the state of one of its devices.
- `rings`: which device is in which ring. `window`: maintenance windows.
"""
