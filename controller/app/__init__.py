"""The composition root: the only package that chooses implementations.

- `run`: runs a controller until it is stopped. `build`, `broker`, `identity`: construct its parts.
- `offline`: what the CLI needs without a running controller; `offline_authority`: of that, what `cordon ca` needs.
"""
