"""Commands from the controller.

- `executor`: accepts, runs and answers them. `journal`: what survives a restart.
- `keyring_verifier`: verification with the trusted keys. `lazy_loading`: loads all this with the first command.
"""
