"""When and how a device is contained and released.

- `cases`: opens, escalates, steps down and closes cases. `response`: what the failing rules require.
- `admission`: guards that hold a containment back. `challenge`: the nonce that a release needs.
- `operator_requests`, `broker_results`, `device_events`, `deadlines`, `revocation`: one file for each source of events.
- `report_signatures`: replay and age of signed reports. `explain_events`: explanations of rules about events.
- `plan`: the steps at the broker. `proof`, `receipts`: whether a decision is proven, and the receipt of a case.
"""
