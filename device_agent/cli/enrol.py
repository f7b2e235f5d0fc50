"""`cordon-agent enrol`: gets a certificate for this device, and writes its configuration."""

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from schemas.base import DEVICE_ID_PATTERN
from schemas.secret_sources import IN_PLACE_HELP, SECRET_HELP, SecretError, secret_in_place

DEFAULT_FOLDER: Final = Path("/etc/cordon")
_FINGERPRINT: Final = re.compile(r"^[0-9a-f]{64}$")


def add_parser(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the noun `enrol`."""
    parser = nouns.add_parser(
        "enrol",
        help="get a certificate for this device",
        description="Generate a key on this device, and get a certificate for it with an enrolment token.",
    )
    parser.add_argument("--url", required=True, help="the controller's API: https://host:port")
    parser.add_argument("--token", help=f"enrolment token {IN_PLACE_HELP}; others can see one that is given itself")
    parser.add_argument("--token-file", help=f"the token: {SECRET_HELP}")
    parser.add_argument("--ca-fingerprint", required=True, help="SHA-256 of the authority, from `cordon enrol token`")
    parser.add_argument("--device-id", help="default: the host name")
    parser.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help="folder for the files; default: %(default)s")
    parser.add_argument("--key-passphrase-file", help=f"encrypt the key; the agent needs this to start: {SECRET_HELP}")


def enrol(arguments: argparse.Namespace) -> None:
    """Enrols this device, and prints which files were written."""
    from device_agent.host.secrets import read_given_secret
    from device_agent.identity import enrol as enrolment
    from device_agent.settings import default_device_id

    device_id = arguments.device_id or default_device_id()
    fingerprint = arguments.ca_fingerprint.lower().replace(":", "")
    if (arguments.token is None) == (arguments.token_file is None):
        raise enrolment.EnrolmentUsageError("give the token, with --token-file or --token")
    if _FINGERPRINT.fullmatch(fingerprint) is None:
        raise enrolment.EnrolmentUsageError("--ca-fingerprint is 64 hex digits, as printed by `cordon ca show`")
    if re.fullmatch(DEVICE_ID_PATTERN, device_id) is None:
        raise enrolment.EnrolmentUsageError(f"--device-id: {device_id!r} is not valid: 1 to 64 of A-Z a-z 0-9 . _ -")
    passphrase_source = arguments.key_passphrase_file
    folder = arguments.dir.absolute()
    options = enrolment.EnrolmentOptions(
        url=arguments.url,
        token=_token(arguments),
        fingerprint=fingerprint,
        device_id=device_id,
        folder=folder,
        passphrase=None if passphrase_source is None else read_given_secret(passphrase_source, "--key-passphrase-file"),
    )
    answer = enrolment.enrol(options)
    write = sys.stdout.write
    write(f"{device_id}: enrolled; the certificate is valid until {_format_date(answer.leaf.not_valid_after_utc)}\n")
    write(f"wrote {folder / 'device.key'} (mode 0600), {folder / 'device.pem'}, {folder / 'ca.pem'}\n")
    config, text = folder / "agent.toml", enrolment.config_text(device_id, folder, answer, passphrase_source)
    if config.exists():
        write(f"{config} exists and was not changed; the configuration of this enrolment:\n\n{text}")
        return
    enrolment.write_config(config, text)
    write(f"wrote {config}; start the agent: cordon-agent run --config {config}\n")


def _token(arguments: argparse.Namespace) -> str:
    from device_agent.errors import SettingsError
    from device_agent.host.secrets import read_given_secret

    if arguments.token is None:
        return read_given_secret(arguments.token_file, "--token-file")
    try:
        return secret_in_place(
            arguments.token,
            "--token",
            lambda text: read_given_secret(text, "--token"),
            lambda text: sys.stderr.write(f"{text}\n"),
        )
    except SecretError as e:
        raise SettingsError(str(e)) from e


def _format_date(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
