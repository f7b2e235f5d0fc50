"""Signed updates on the device: verified before anything runs, installed by kind, confirmed or put back."""
