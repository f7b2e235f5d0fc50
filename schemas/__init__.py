"""The wire contract between controller and devices. Pure.

`topics` builds and parses topics; `posture` has the report, with its sections in `sections/`; `commands` and `actions`
the commands, `events` status, events and receipts, `enrolment` and `updates` those messages. `signing` (commands) and
`report_signing` have the signed envelopes. `file_sets` reads the archives of updates, `pem` certificates from outside.
`base` has the common types and limits. `export` writes the JSON Schemas.
Shared formats of configurations: `durations`, `broker_address`, `key_text`, `backoff`, `secret_sources` (and what reads
them).
"""
