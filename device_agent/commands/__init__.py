"""Commands: verified, written to the journal, run, and answered.

`executor` accepts and runs commands, `journal` is what survives a restart, `keyring_verifier` verifies signatures,
`lazy_loading` keeps the memory of an idle agent small. The actions themselves are in device_agent.actions.
"""
