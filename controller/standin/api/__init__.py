"""The part of EMQX's HTTP API that Cordon uses.

`serving` reads HTTP, `web` finds the handler, `check` validates queries and bodies, `rows` builds client rows.
The other modules have the handlers of one resource each; `control` has the stand-in's own routes for tests.
"""
