"""EMQX's HTTP API.

- `client`: requests, responses, retries and coalescing. Start here for the API itself.
- `containment`: contains and releases clients, and verifies it on every node.
- `setup`: brings a broker to the required settings and back.
- `access`, `tables`, `inspection`: access rules, rows of bans and rules, facts about the broker.
"""
