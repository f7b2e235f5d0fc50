"""Carries out containments and keeps them in force.

- `outbox`, `effect_queue`: effects by device, with retries; `enforcer`, `broker_effects`: carry one out. Start with
  `outbox`.
- `identity_check`: how strongly the broker authenticated a reporter.
- `nodes`: which nodes run, and which cannot be read.
- `reconciler`, `comparison`, `drift`: compare the broker with the decisions and repair it.
- `operator_actions`, `waivers`, `users`: requests of operators, waivers, containment by user name or certificate.
"""
