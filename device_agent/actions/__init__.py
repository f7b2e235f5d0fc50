"""Actions of commands: each plans, applies, verifies, and undoes what failed.

`base` has the interfaces and parameter checks, `registry` the table of actions by name; `edit` is the base of
actions that change files. One file per subject: `service`, `port`, `firewall` (with `deadman`), `package`,
`source`, `ssh`, `password`, `account`, `key`, `mac`, `logs`, `scan_run`, `integrity`, `trust` (keys of the
controller), `update`.
"""
