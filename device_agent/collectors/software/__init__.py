"""Installed software.

`updates` collects packages (`inventory`), `pending_updates`, `kernels` and `unattended_upgrades`; `sources` the package
sources, of apt through `sources_apt` and `apt_conf`; `installed_targets` the targets that Cordon's updates installed.
"""
