"""The repository of signed updates (TUF).

- `repository`: the port's implementation. `publishing`, `signing`: add targets and sign metadata.
- `ceremony`, `keys`: creation and rotation of keys. `folder`: the files.
"""
