"""The operating system's exposure and protection.

`sockets` (with `interfaces`), `services` (other init systems than systemd in `inits`), `firewall` (rules evaluated in
`firewall_ruleset`), `disk` encryption, `mac` (SELinux, AppArmor) and `log_settings`.
"""
