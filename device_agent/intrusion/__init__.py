"""Follows what intrusion monitors write, and turns it into few, bounded events."""
