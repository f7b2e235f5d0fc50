"""Attacks, each as somebody would try it, and what comes of it."""
