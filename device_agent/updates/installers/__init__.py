"""Installers, one for each kind of target; base.py has the interface. A new one is added in `updates/factory.py`."""
