"""What a device, or somebody who took it over, may send: generated, run through the real parts, and counted."""
