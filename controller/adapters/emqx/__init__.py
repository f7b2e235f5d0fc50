"""EMQX's HTTP API.

- `client`: requests, responses, retries and shared requests. Start here for the API itself.
- `containment`: the steps that contain and release clients and users, and their read-back on every node.
- `setup`: the settings that Cordon needs: planned, applied and undone.
- `access`, `tables`, `inspection`: access rules, rows of bans and rules, what an audit reads.
"""
