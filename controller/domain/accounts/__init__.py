"""People: accounts and their roles, sessions, passwords; and the caller that every route of the API sees. Pure.

`account`: an account and what may be done with all of them; `roles`: named sets of scopes; `session`: when a session
ends; `caller`: who calls, with which scopes; `factors`: passkeys, TOTP and recovery codes of an account;
`secret_text`: digests of tokens and sessions; `passwords`: what may be one; `failure_counts` and `login_delay`: how
failures slow further attempts, those to sign in by address and account;
`grants`: scopes for a while; `sso`: people who come from an OpenID provider.
"""
