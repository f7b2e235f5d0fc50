"""Decisions of the agent, pure.

- `command_verifier`, `verdict`: whether a command may run. `connection_policy`: where and when to connect.
- `report`, `report_limits`, `delta`, `report_outbox`: what is reported, and again until it is confirmed.
"""
