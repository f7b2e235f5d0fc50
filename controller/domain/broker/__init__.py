"""Decisions about the broker itself.

- `access`, `access_lint`, `topic_filters`: access rules of devices by class, and mistakes in them.
- `facts`, `fact_readers`, `inspection`: the broker's settings as facts for broker policies.
- `ports`: ports of EMQX nodes and firewall rules for them.
"""
