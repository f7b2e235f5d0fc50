"""Migrations, one file each, applied in the order of their numbers."""

import pkgutil
from importlib import import_module

from controller.adapters.sqlite.migrations.registry import KNOWN, migrations

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    if _name.startswith("m0"):
        import_module(f"{__name__}.{_name}")

__all__ = ["KNOWN", "migrations"]
