"""Tells operators what they must hear of, at least once, without holding up anything else.

- `dispatcher`: plans what audit lines ask for, and keeps a worker for each sink. `worker`: delivers to one sink.
- `operations`: sinks, tests, log and acknowledgements, for the API. `watch`: records trouble of link, nodes and store.
"""
