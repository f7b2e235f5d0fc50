"""The active policies.

- `activation`: loads, checks and activates policies. `preview`: what other policies would change.
- `knowledge`: loads, replaces and ages the knowledge that rules rest on.
"""
