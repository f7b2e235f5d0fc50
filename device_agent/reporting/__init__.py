"""Reports: reporter.py decides when which report is sent, report_store.py keeps sequence numbers and pending reports.

signer.py signs reports with the key of the device's certificate. The shapes of reports are in `domain/report.py`.
"""
