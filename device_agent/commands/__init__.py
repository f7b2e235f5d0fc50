"""Commands: verified, written to the journal, run, and answered.

executor.py accepts and runs commands, journal.py is what survives a restart, keyring_verifier.py verifies signatures,
lazy_loading.py keeps the memory of an idle agent small. The actions themselves are in `device_agent.actions`.
"""
