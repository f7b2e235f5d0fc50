"""Certificates and enrolment of devices.

- `certificates`: the registry. `enrolment`, `renewal`, `revocation`: one use case each.
- `external_crls`: revocation lists of other authorities. `clones`: doubled identities. `services`: all of them.
"""
