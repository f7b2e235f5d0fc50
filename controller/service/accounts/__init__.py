"""Accounts at work: `authentication`: which caller a token or session is; `operations`: changes
of accounts; `sign_in`: passwords, one-time codes, sessions; `grants`: scopes for a while;
`services`: what the API takes.
"""
