"""Signed updates: verified, staged, installed, checked, confirmed or rolled back.

updater.py is the sequence of steps, factory.py builds it from the settings. tuf_client.py decides what may be
installed, download.py fetches it, requirements.py checks the device, consent.py asks the person, health.py checks the
result. records.py and ledger.py are what survives a restart. slots.py and launcher.py update the agent itself.
`installers` has one file for each kind of target.
"""
