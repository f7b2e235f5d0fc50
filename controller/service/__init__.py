"""Loops and use cases: take what arrives, let the domain decide, commit, carry out.

- `fleet_state`: the state of all devices and the only way to change it. `unit_of_work`: what one commit contains.
- `ingest`: messages of devices. `containment`: carries out, verifies and repairs. `policy`: activation of policies.
- `identity`, `rollout`, `broker`: certificates, rollouts, broker settings and access rules. `settings`: cordon.toml.
- `timers`, `maintenance`, `audit_log`, `waiting`: deadlines, pruning, log output, requests that wait for a proof.
"""
