"""The nouns of cordon-agent besides run, launch and report, which are in device_agent.main.

`setup` has doctor, install and passphrase (with `doctor` and `install`); `do`, `enrol` and `updates` have
one noun each. `output_streams` ends standard output and standard error.
"""
