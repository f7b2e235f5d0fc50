"""Signed updates: verified, staged, installed, checked, confirmed or rolled back.

`updater` is the sequence of steps, `factory` builds it from the settings. `tuf_client` decides what may be
installed, `download` fetches it, `requirements` checks the device, `consent` asks the person, `health` checks the
result. `records` and `ledger` are what survives a restart. `slots` and `launcher` update the agent itself.
`installers` has one file for each kind of target.
"""
