"""The nouns of `cordon-agent` besides `run`, `launch` and `report`, which are in main.py.

setup.py has `doctor`, `install` and `passphrase` (with doctor.py and install.py); do.py, enrol.py and updates.py have
one noun each.
"""
