"""Commands of cordon-agent for the person at the device.

- `setup`: registers `doctor`, `install` and passphrases. `enrol`, `updates`, `do`: one command each.
"""
