"""`cordon quarantine`: contains and releases devices and users, with plans and receipts."""
