"""Reports to the controller.

- `reporter`: what is sent when. `report_store`: what survives a restart. `signer`: signatures.
"""
