"""Messages of devices, from MQTT to the decision and the receipt.

- `ingest`: the way of a batch. Start here. `decisions`: from its messages to what is committed.
- `decoding`, `delta`, `deduplication`: from bytes to a report.
- `signatures`, `keyring`: signed reports. `rate_limit`, `rejections`: limits, and the audit of rejected messages.
- `receipts`: answers to devices.
"""
