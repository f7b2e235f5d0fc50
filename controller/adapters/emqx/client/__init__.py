"""The HTTP client of EMQX's API: requests, responses, retries, and reads that several callers share."""
