"""One kind of remediation each: plan, apply, verify, undo."""
