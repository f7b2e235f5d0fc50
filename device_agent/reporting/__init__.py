"""Reports: `reporter` decides when which report is sent, `report_store` keeps sequence numbers and pending reports.

`signer` signs reports with the key of the device's certificate. The shapes of reports are in the domain.
"""
