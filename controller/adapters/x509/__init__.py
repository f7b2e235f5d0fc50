"""Certificates, requests and revocation lists: the only place that knows X.509."""
