"""Implementations of the ports, one technology each.

- `mqtt`: the broker connection. `emqx`: its HTTP API. `sqlite`: the store. `x509`: the certificate authority.
- `tuf_repository`: signed updates. `policies`, `access`: policy files and access templates.
- `revocation_marks`: the file beside the store that a restored older store does not undo.
- `keys`, `files`: secret files and durable writes. `logs`, `system`: log output, clock and ids.
"""
