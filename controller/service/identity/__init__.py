"""Certificates and enrolment of devices.

- `certificates`: the registry. `enrolment`, `renewal`, `revocation`: one use case each.
- `crl_publisher`: this authority's revocation lists. `external_crls`: those of other authorities.
- `clones`: doubled identities. `services`: all of them.
"""
