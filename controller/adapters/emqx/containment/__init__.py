"""Containment at EMQX, of clients and of users.

- `broker`: the port. `runner`: carries out and describes the plans of `controller.domain.containment.plan`.
- `actions`, `checks`: one class for each step, which declares its requests and sends them; `steps` is their base.
- `left_open`: what a restriction does not stop.
- `verification`: reads back on every node and repairs until it holds; `context`: what the steps of a plan share.
- `authentication`: how strongly a client is authenticated.
"""
