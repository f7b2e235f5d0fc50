"""Policies in force.

- `activation`: loads, checks and activates policies. `preview`: what other policies would change.
"""
