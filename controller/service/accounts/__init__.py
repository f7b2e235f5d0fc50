"""Accounts at work: `authentication`: which caller a token or session is; `operations`: changes
of accounts; `services`: what the API takes.
"""
