"""Brings EMQX to the settings that Cordon needs, keeps what was there before, and restores it."""
