"""HTTP listeners that idle, slow and many clients cannot use up.

- `admission`: how many connections a listener has, in all and per address, and how descriptors are divided.
- `protocol`: the phases of a connection and their time limits. `server`: accepts, watches and closes connections.
- `certificate_reload`: takes changed certificates into use.
"""
