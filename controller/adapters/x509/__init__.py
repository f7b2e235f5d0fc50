"""X.509 certificates, requests and revocation lists; no other package handles them.

- `authority`: issues and revokes. `building`: certificates, requests and lists. `folder`: the files of an authority.
- `rotation`: replaces the issuing certificate.
- `foreign`: revocation lists of other authorities.
"""
