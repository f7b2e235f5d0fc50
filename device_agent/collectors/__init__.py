"""One source of facts each; a collector returns its section or says why it cannot."""
