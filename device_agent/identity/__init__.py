"""The device's own identity: its key, how it gets a certificate for it, and how both are renewed."""
