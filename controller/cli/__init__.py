"""The cordon command (Typer), one file for each noun.

- `app`: all commands. `connection_options`: how they reach the API. `output`: tables and JSON. `errors`: exit codes.
- `serve`, `init`: run and set up a controller. `quarantine`, `devices`, `rollouts`: a noun each, as all others.
"""
