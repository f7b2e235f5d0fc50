"""The operating system: files, processes, package managers, services, firewall.

system.py is the machine as a value (`System`), execute.py runs programs, files.py reads and writes files. By subject:
apt.py and packages.py, systemd.py, inetd.py and xinetd.py, nft.py, certificate.py, login_records.py,
intrusion_monitors.py, os_release.py. For the agent itself: clock.py, memory.py, notify.py (systemd).
"""
