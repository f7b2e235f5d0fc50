# ruff: noqa: INP001 - a script, run by its path
"""Runs the contract suite or the demonstration against the lab cluster, with the secrets that were made for it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

LAB: Final = ("lab1.cordon.internal", "lab2.cordon.internal", "lab3.cordon.internal")
_API_PORT: Final = 18083
_MQTT_PORT: Final = 1883


def command(what: str, folder: Path, more: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line, and the variables that it needs beyond the environment. Secrets are in variables only."""
    key, _, secret = (folder / "api-key").read_text().strip().partition(":")
    user, _, password = (folder / "mqtt-user").read_text().strip().partition(":")
    apis = ",".join(f"http://{node}:{_API_PORT}" for node in LAB)
    mqtt = ",".join(f"{node}:{_MQTT_PORT}" for node in LAB)
    if what == "demo":
        argv = ["cordon", "demo", "--emqx", apis, "--key", key, "--mqtt", mqtt, "--mqtt-user", user, *more]
        return argv, {"CORDON_EMQX_SECRET": secret, "CORDON_MQTT_PASSWORD": password}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/contract", *more]
    names = ("API", "KEY", "SECRET", "MQTT", "MQTT_USER", "MQTT_PASSWORD")
    values = (apis, key, secret, mqtt, user, password)
    return argv, {f"CORDON_TEST_EMQX_{name}": value for name, value in zip(names, values, strict=True)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run something against the lab cluster.")
    parser.add_argument("what", choices=("contract", "demo"))
    parser.add_argument("--secrets", type=Path, default=Path("/cordon/tests"), help="default: %(default)s")
    arguments, rest = parser.parse_known_args()
    argv, variables = command(arguments.what, arguments.secrets, rest)
    os.execvpe(argv[0], argv, {**os.environ, **variables})  # noqa: S606 - an argv list of ours, no shell
