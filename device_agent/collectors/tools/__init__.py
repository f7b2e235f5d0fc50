"""Results of other security tools, and file integrity.

`lynis` and `openscap` read the tools' results (`lynis_report`, `xccdf`), which `tool_runner` may produce; `intrusion`
lists intrusion monitors. `file_integrity` compares a `file_integrity_scan` with the stored `file_integrity_baseline`.
"""
