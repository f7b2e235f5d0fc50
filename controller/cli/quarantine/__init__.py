"""Commands that contain and release devices, user names and certificates.

- `app`: the commands. `subjects`: what they are about. `plans`: what would be done. `results`: what was done.
"""
