"""Contains and releases clients at EMQX, step by step, and reads every node back."""
