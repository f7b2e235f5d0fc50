"""Contains and releases clients at EMQX, step by step, and reads every node back.

- `broker`: the port's implementation. Start here. `runner`: carries out, checks or describes a plan.
- `actions`, `checks`: one class for each step of a plan; `steps`, `context`: what they have in common.
- `verification`: read-back on every node. `authentication`: how strongly a client is authenticated.
"""
