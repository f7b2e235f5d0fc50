"""`cordon update`: the repository of signed updates, its keys and their options."""
