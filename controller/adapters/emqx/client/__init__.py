"""The HTTP client of EMQX's API.

- `api`: sends requests and reads listings. `requests`: every request that Cordon makes. `models`: rows of responses.
- `http`: addresses, timeouts and retries. `responses`: errors. `paths`: names as URL segments.
- `coalescing`: requests that concurrent plans share.
"""
