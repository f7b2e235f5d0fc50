"""The demonstrations of `cordon demo` (containment) and `cordon demo-update` (rollouts), with real processes.

`command` has the options, `runner` runs the steps of `containment` or `update`; `broker`, `controller_process` and
`simulator` start the parts, `observations` holds the evidence.
"""
