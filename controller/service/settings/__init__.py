"""The configuration file `cordon.toml`.

- `settings`: all tables and how the file is read; `base`: types and base class. Others: one file for a group of tables.
"""
