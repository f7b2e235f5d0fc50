"""Actions of commands: each plans, applies, verifies, and undoes what failed.

base.py has the interfaces and parameter checks, registry.py the table of actions by name; edit.py is the base of
actions that change files. One file per subject: service.py, port.py, firewall.py (with deadman.py), package.py,
source.py, ssh.py, password.py, account.py, key.py, mac.py, logs.py, scan_run.py, integrity.py, trust.py (keys of the
controller), update.py.
"""
