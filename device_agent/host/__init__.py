"""The operating system: files, processes, package managers, services, firewall.

`system` is the machine as a value (`System`), `execute` runs programs, `files` reads and writes files. By subject:
`apt` and `packages`, `systemd`, `inetd` and `xinetd`, `nft`, `certificate`, `login_records`,
`intrusion_monitors`, `os_release`, `uci`. For the agent itself: `clock`, `memory`, `notify` (systemd), `tls_socket`.
"""
