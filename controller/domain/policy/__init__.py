"""Policies: what devices are checked for.

- `model`: policies, rules and responses. `cel`: the expression language. `findings`: results.
- `evaluate`: rules for reports; `event_rules`: rules for device events; `explain`: results with their facts.
- `facts`: all facts of a report, by group in `facts_system`, `facts_access`, `facts_crypto`, `facts_software` and
  `facts_tools`. A new fact goes there.
- `knowledge`: how long distributions and OpenSSL branches get fixes, and the facts that rest on it.
"""
