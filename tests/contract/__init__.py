"""What Cordon relies on in EMQX, held against whichever broker runs it.

Without further settings the suite starts the stand-in with three nodes. With `CORDON_TEST_EMQX_API` (base URLs without
path), `_KEY`, `_SECRET`, `_MQTT` (host:port), `_MQTT_USER` and `_MQTT_PASSWORD` set, comma-separated where there are
several, it runs unchanged against that EMQX 5.8 cluster, makes only rows with a random prefix, and removes them.

The expectations are those recorded on EMQX 5.8.9 with a password authenticator, the built-in database as the only
authorization source, `no_match = allow`, the cache at its default and presence messages on. Not here: the death of a
node (a test may kill nodes of the stand-in only: `tests/unit/standin/test_nodes.py`) and the HTTP authenticator,
which Cordon does not use.
"""
