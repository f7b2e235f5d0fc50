"""The operating system's exposure and protection.

`sockets` (with `interfaces`), `services` (other init systems than systemd in `inits`), `firewall` (rule sets as data in
`firewall_ruleset`, read by `firewall_nft*` and `firewall_iptables*`, evaluated by `firewall_verdicts` for the packets
of `firewall_packets`), `disk` encryption, `mac` (SELinux, AppArmor) and `log_settings`.
"""
