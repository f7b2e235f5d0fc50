"""The HTTP API (FastAPI): one file for each resource, listed in `_RESOURCES` of `server`.

- `server`: builds the application; `context`: what routes need; `auth`: tokens and scopes; `middleware`: limits.
- `errors`, `fields`, `views`: error responses, field types, shared responses. `audit_texts`: sentences of audit kinds.
- `metrics`, `health`: for monitoring. `client`: the client that the CLI uses.
"""
