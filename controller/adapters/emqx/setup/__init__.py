"""Brings EMQX to the settings that Cordon needs, keeps what was there before, and restores it.

- `setup`: plans, applies and undoes. `baseline`: the required settings. `manual_steps`: what only operators can change.
"""
