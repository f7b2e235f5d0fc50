"""Scans in child processes.

`scan_process` runs in the agent and starts `scan_child`, which loads the collectors, scans once and ends. The child
returns the sections and the scanner's state (JSON), which the agent passes to the next child.
"""
