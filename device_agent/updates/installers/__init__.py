"""Installers, one for each kind of target; `base` has the interface.

A new one is added in updates/factory, its kind in schemas.updates.
"""
