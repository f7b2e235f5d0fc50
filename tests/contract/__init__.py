"""What Cordon relies on in EMQX, held against whichever broker runs it.

Without further settings the suite starts the stand-in with three nodes, once as EMQX 5.8 and once as 6.3. With
`CORDON_TEST_EMQX_API` (base URLs without path), `_KEY`, `_SECRET`, `_MQTT` (host:port), `_MQTT_USER` and
`_MQTT_PASSWORD` set, comma-separated where there are several, it runs unchanged against that EMQX 5.8 or 6.x cluster,
makes only rows with a random prefix, and removes them.

`CORDON_TEST_EMQX_RESTART` is a command line that restarts a node, such as `docker restart emqx{node}` (`{node}`: the
number of the node in the order of `_API`, from 1; no shell); `_HANG` and `_RESUME` stop a node as SIGSTOP does and let
it go on. Without them the tests that need them are skipped. `CORDON_TEST_EMQX_FOREIGN_BANS` is how many rows of
somebody else the ban table gets in one test (default 500; what is claimed are 10,000).

`CORDON_TEST_EMQX_TLS`, `_TLS_LISTS` and `_TLS_FOLDER` name a listener with mutual TLS: see CONTRIBUTING.md.

The expectations are those recorded on EMQX 5.8.9 and 6.3 with a password authenticator, the built-in database as the
only authorization source, `no_match = allow`, the cache at its default and presence messages on. Not here: a node that
dies for good (a test may kill nodes of the stand-in only: `tests/unit/standin/test_nodes.py`) and the HTTP
authenticator, which Cordon does not use.
"""
