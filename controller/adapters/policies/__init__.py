"""Policy files in YAML.

- `loader`: reads files and folders into a `PolicySet`; `models`: the keys of a policy file.
- `document`, `diagnostics`: positions and texts of errors.
- `checks`: subject and remedies. `event_rules`: rules about events.
"""
