"""`cordon keys`: command-signing keys and operators' keys."""
