"""Differential tests: our readers against the programs that own the formats, on generated inputs."""
