"""The active policies.

- `activation`: loads, checks and activates policies. `preview`: what other policies would change.
"""
