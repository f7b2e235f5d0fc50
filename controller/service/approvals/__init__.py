"""Decisions of two persons.

- `book`: the requests: made, bounded, ended, and kept as history.
- `inbox`: decides and carries out requests of all kinds.
"""
