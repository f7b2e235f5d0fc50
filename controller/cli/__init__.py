"""The cordon command (Typer): one module for each noun, a folder where a noun has several.

- `app`: all commands. `connection_options`: how they reach the API. `output`: tables and JSON. `errors`: exit codes.
- `serve`, `init`: run and set up a controller. `quarantine`, `devices`, `rollouts`: a noun each, as all others.
"""
