"""Collectors: each collects one section of the report, or states why it cannot.

`registry` lists them by section, `scan` runs them, `base` has the protocol and the shared helpers. The folders are the
groups of the report's sections:
    system/    sockets, services, firewall, disk, mac, logging
    access/    access (accounts, password rules, lockout), ssh
    crypto/    openssl, keys, certificates
    software/  updates, sources, software (targets installed by updates)
    tools/     lynis, openscap, intrusion, integrity
"""
