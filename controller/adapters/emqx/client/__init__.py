"""The client of EMQX's API.

- `http`: fail-over, time-outs and retries; the only file with HTTP. `slots`: how many exchanges are in flight.
- `requests`: every request, by resource, with the reading of its answer; `paths` escapes names, `models` has the rows.
- `responses`: which answer is which error of the port.
- `cluster`: which nodes run and which cannot be read; `prefixes`: `$` prefixes that the fleet uses.
- `api`: sends requests and reads listings.
- `row_reader`: reads rows of many by listings; `coalescing` shares requests between concurrent callers.
"""
