"""Turns alerts of intrusion monitors and failed logins into few, bounded events for the controller.

`watch` drives it: `log_follower` reads the monitors' files, `alerts` parses their lines, `failed_logins` counts failed
logins by source, and `aggregator` merges equal alerts and limits the rate of events.
"""
