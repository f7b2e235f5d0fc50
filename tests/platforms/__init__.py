"""Root file systems of the supported platforms, what the agent reads in them, and how the shipped packs judge them."""
