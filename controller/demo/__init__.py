"""Demonstrations: a broker, a controller and simulated devices on one machine.

- `command`, `story`: `cordon demo`. `update_command`, `update_story`: `cordon demo-update`. `runner`: runs both.
- `stage`, `scene`: what is started. `observations`, `traces`: what is seen. `view`: the output.
"""
