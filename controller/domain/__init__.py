"""Every decision, pure: values in, values out; no clock, no I/O, no logging.

- `step`: the one entry for events about a device. Start here: its docstring has the states, rules and an example.
- `device`, `events`, `effects`, `transition`: the values of a step. `reports`, `commands`: handlers of events.
- `containment`, `guards`, `policy`, `identity`, `rollout`, `broker`: one folder for each subject.
- `audit_kinds`, `audit_chain`: kinds of audit entries, and the hash chain that they form.
- `scopes`, `passphrases`, `policy_preview`: token scopes, passphrase checks, preview of other policies.
"""
