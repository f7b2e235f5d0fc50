"""Carries rollouts on.

- `engine`: the loop over all rollouts; `run`: one of them in memory. `observations`: reports and command results.
- `operations`: requests of operators. `triggers`: rollouts that policies start.
"""
