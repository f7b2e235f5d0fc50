"""Who can log in, and how.

`account_security` collects the section "access" with `accounts` (passwd and shadow), `pam`, `fail2ban` and
`failed_logins`; `ssh` collects the section "ssh", of dropbear through `dropbear`.
"""
