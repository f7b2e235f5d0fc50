"""Many light devices in one process: real connections, receipts and command guard; only the postures are made up."""
