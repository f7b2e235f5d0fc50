"""`cordon devices`: the fleet, one device with its timeline, labels."""
