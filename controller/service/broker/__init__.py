"""Services for the broker's settings.

- `access`, `access_operations`: access rules of devices. `setup`: required settings. `audit`: broker policies.
"""
