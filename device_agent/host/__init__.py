"""The operating system, for collectors and actions: processes, files, services, packages.

- `system`: the machine or a folder. `execute`: runs programs. `files`, `state_files`: bounded reads, durable writes.
- `systemd`, `inetd`, `xinetd`, `nft`, `apt`, `packages`: one tool each. `login_records`, `intrusion_monitors`: logs.
- `clock`, `memory`, `notify`, `certificate`, `os_release`: small helpers.
"""
