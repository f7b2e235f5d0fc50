"""MQTT 5 over paho.

- `messages`: the port's implementation; `connection`: one connection with reconnects; `options`: its settings.
- `inbox`, `outbox`: received and outgoing messages until they are acknowledged.
- `paho_client`, `buffered_socket`, `packets`: everything that touches paho. `reason_codes`: errors in words.
"""
