"""OpenID Connect: single sign-on through one configured provider, by the code flow with PKCE.

`exchange`: one bounded request; `metadata`: discovery; `keys`: the provider's signing keys; `id_token`: what an ID
token must hold; `provider`: the port.
"""
