"""Simulates many devices in one process, for demonstrations and benchmarks.

Connections, reports, receipts and command verification are those of a real agent; only the postures are made up.
`fleet` runs the devices in one thread; each is a `device` (reports and commands) on a `connection` (MQTT). `postures`
and `updates` change the simulated state. `command` is the command line, `control` its line protocol.
"""
