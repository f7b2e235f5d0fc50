"""Identities of devices.

- `certificates`: lifetimes and requirements. `enrolment`: tokens and what they allow. `clones`: doubled identities.
"""
