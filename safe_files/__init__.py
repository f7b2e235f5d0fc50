"""Files in folders that others may write to: the only code besides schemas that both sides share.

`files` opens, reads, creates and replaces files, and changes their modes and owners: by descriptor, following no links.
"""
