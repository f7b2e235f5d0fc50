"""`cordon ca`: the certificate authority. Commands that write files work on this machine, others ask the controller."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import DEFAULT_CONFIG, connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, print_json, safe, say, show
from schemas.secret_sources import SECRET_HELP

if TYPE_CHECKING:  # imported late: every `cordon --help` would wait for them
    from controller.domain.identity.certificates import CertificateKind
    from controller.service.settings.settings import Settings

DEFAULT_FOLDER: Final = Path("/etc/cordon/ca")
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # 32 letters that do not look alike: 5 bits each
_LETTERS: Final = 30
_GROUP: Final = 5
_MAX_FILE: Final = 64 * 1024  # bytes
_COLUMNS: Final = ("issuer", "next list")
app = typer.Typer(help="The certificate authority.", no_args_is_help=True)
AuthorityFolderOption = Annotated[
    Path, typer.Option("--dir", help="the authority's folder; goes into authority.folder")
]
CaConfigOption = Annotated[Path, typer.Option("--config", help="cordon.toml of the controller on this machine")]
OutputFolderOption = Annotated[Path, typer.Option("--out", help="folder for NAME.pem, NAME.key and ca.pem")]
RootKeyOption = Annotated[Path, typer.Option("--root-key", help="file of the root's encrypted key", show_default=False)]
CaPassphraseFileOption = Annotated[
    str | None, typer.Option("--passphrase-file", help=f"the passphrase of that key: {SECRET_HELP}")
]


@app.command("init")
def init(
    crl_url: Annotated[
        str,
        typer.Option("--crl-url", help="http://host:port where brokers fetch revocation lists", show_default=False),
    ],
    root_key: RootKeyOption,
    folder: AuthorityFolderOption = DEFAULT_FOLDER,
    passphrase_file: CaPassphraseFileOption = None,
    name: Annotated[str, typer.Option("--name", help="prefix of the authorities' names")] = "Cordon",
) -> None:
    """Create a root and an issuing authority. The root's key is written encrypted: move it off this machine."""
    from controller.app.offline_authority import create_authority

    if not _is_crl_base(crl_url):
        raise CliError(
            "--crl-url is http://host:port: EMQX fetches lists by plain http, and they are signed", ExitCode.USAGE
        )
    passphrase = _new_passphrase() if passphrase_file is None else _read_passphrase(passphrase_file)
    info = create_authority(folder.absolute(), root_key.absolute(), passphrase, name, crl_url.rstrip("/"))
    say(f"made   {folder}  (root.pem, issuing.pem, issuing.key, root.crl)")
    say(f"made   {root_key}  (the root's key, encrypted)")
    if passphrase_file is None:
        say("\nThe passphrase of the root's key; it is stored nowhere and shown only now:")
        say(f"  {passphrase}")
    say("\nMove the root's key and its passphrase off this machine, to two places. They are needed once a year")
    say("(cordon ca crl --root-key ...), and never by the controller.")
    say("\nIn cordon.toml:")
    say(f'  [authority]\n  folder = "{folder.absolute()}"\n  crl_listen = "0.0.0.0:{_port(crl_url)}"')
    say(f"\nFingerprint, for devices that enrol (--ca-fingerprint):\n  {info.fingerprint}")


@app.command("show")
@connected
def show_authority(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """Show the authority of the running controller: fingerprint, expiry, revocation lists."""
    authority = client.get("/certificates/authority")
    if output is OutputFormat.JSON:
        print_json(authority)
        return
    say(f"fingerprint  {authority['fingerprint']}")
    say(f"root         {safe(authority['subject'])}, until {authority['root_until']}")
    say(f"issuing      {safe(authority['issuing_subject'])}, until {authority['issuing_until']}")
    say(f"lists at     {safe(authority['crl_url'])}")
    rows = ((crl["issuer"], ago(crl["next_update"])) for crl in authority["lists"])
    show(output, authority, _COLUMNS, rows)


@app.command("issue-server")
def issue_server(
    name: Annotated[str, typer.Argument(metavar="NAME", help="common name, also the first host", show_default=False)],
    host: Annotated[list[str] | None, typer.Option("--host", help="further host name or address; repeat")] = None,
    out: OutputFolderOption = Path(),
    config: CaConfigOption = DEFAULT_CONFIG,
) -> None:
    """Create key and certificate of a server: a broker, or this controller's API."""
    from controller.domain.identity.certificates import CertificateKind

    _issue(config, CertificateKind.SERVER, name, tuple(dict.fromkeys([name, *(host or ())])), out)


@app.command("issue-client")
def issue_client(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="client id, the common name  [this controller's]")
    ] = None,
    out: OutputFolderOption = Path(),
    config: CaConfigOption = DEFAULT_CONFIG,
) -> None:
    """Create key and certificate of a client: the controller itself, or a device that cannot enrol."""
    from controller.domain.identity.certificates import CertificateKind

    _issue(config, CertificateKind.CLIENT, _settings(config).client_id if name is None else name, (), out)


@app.command("crl")
def crl(
    root_key: Annotated[Path | None, typer.Option("--root-key", help="renew the root's own list with this key")] = None,
    passphrase_file: CaPassphraseFileOption = None,
    folder: AuthorityFolderOption = DEFAULT_FOLDER,
    url: Annotated[str | None, typer.Option("--url", help="address of the API; also CORDON_URL")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="cordon.toml to take address and token from")] = None,
) -> None:
    """Publish the revocation list now; with --root-key renew the root's, which is valid for a year."""
    if root_key is None:
        import os

        from controller.cli.connection_options import ConnectionOptions, endpoint_of

        client = ApiClient(endpoint_of(ConnectionOptions(url=url, config=config), os.environ))
        published = client.call("POST", "/certificates/publish")
        say(f"list of {published['issuer']}: the next one by {published['next_update']}")
        return
    from controller.app.offline_authority import renew_root_crl

    until = renew_root_crl(folder, root_key, _passphrase(passphrase_file))
    days = (until - time.time()) / 86_400
    say(f"signed {folder / 'root.crl'}: valid for {days:.0f} days. Restart the controller, which then serves it.")


@app.command("rotate-issuing")
def rotate_issuing(
    root_key: Annotated[Path | None, typer.Option("--root-key", help="the root's key; signs the new one")] = None,
    issuing: Annotated[Path | None, typer.Option("--issuing", help="or: new certificate from elsewhere (PEM)")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="the key of --issuing (PEM, mode 0600)")] = None,
    passphrase_file: CaPassphraseFileOption = None,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="the present key was stolen: revoke it with all that it signed")
    ] = False,
    config: CaConfigOption = DEFAULT_CONFIG,
) -> None:
    """Replace the issuing certificate. The list of the replaced one is served until its last certificate ended."""
    from controller.app import offline_authority as offline

    if (root_key is None) == (issuing is None) or (issuing is None) != (key is None):
        raise CliError("give --root-key, or --issuing with --key", ExitCode.USAGE)
    if compromised and root_key is None:
        raise CliError("--compromised needs --root-key: the root's own list has to name the stolen key", ExitCode.USAGE)
    settings = _settings(config)
    if root_key is not None:
        passphrase = _passphrase(passphrase_file)
        info = offline.rotate_issuing(settings, root_key, passphrase, is_compromised=compromised)
    else:
        assert issuing is not None
        assert key is not None
        secret = None if passphrase_file is None else _read_passphrase(passphrase_file)
        info = offline.replace_issuing(settings, issuing, key, secret)
    days = (info.issuing_end - time.time()) / 86_400
    say(f"{safe(info.issuing_subject)}: valid for {days:.0f} days, lists at {safe(info.crl_url)}")
    if compromised:
        say("The former one is on the root's list. Restart the controller, then issue the certificates of servers and")
        say("of the controller again; devices enrol again. docs/identity.md has the order.")
        return
    say("Restart the controller. Devices get certificates of the new one when they renew.")


@app.command("import")
def import_authority(
    root: Annotated[Path, typer.Option("--root", help="certificate that peers trust (PEM)", show_default=False)],
    issuing: Annotated[Path, typer.Option("--issuing", help="certificate that issues (PEM)", show_default=False)],
    key: Annotated[Path, typer.Option("--key", help="its key (PEM, mode 0600)", show_default=False)],
    passphrase_file: CaPassphraseFileOption = None,
    root_crl: Annotated[Path | None, typer.Option("--root-crl", help="the root's own list (PEM)")] = None,
    folder: AuthorityFolderOption = DEFAULT_FOLDER,
) -> None:
    """Use an existing authority: Cordon issues with its key. Set authority.crl_url to the address of its lists."""
    from controller.app import offline_authority as offline

    passphrase = None if passphrase_file is None else _read_passphrase(passphrase_file)
    offline.import_authority(folder.absolute(), root, issuing, key, passphrase, root_crl)
    say(f"imported into {folder}; in cordon.toml:")
    say(f'  [authority]\n  folder = "{folder.absolute()}"\n  crl_url = "http://..."')


@app.command("register")
def register(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="certificates (PEM)", show_default=False)],
    config: CaConfigOption = DEFAULT_CONFIG,
) -> None:
    """Register certificates that another authority issued, so that they can be revoked by their serial number."""
    from controller.app.offline_authority import register_certificates

    for certificate in register_certificates(_settings(config), [_read(path) for path in files]):
        say(f"{safe(certificate.name)}  {certificate.serial}")


def _issue(config: Path, kind: "CertificateKind", name: str, hosts: tuple[str, ...], out: Path) -> None:
    from controller.app.offline_authority import issue_certificate

    issue_certificate(_settings(config), kind, name, hosts, out)
    say(f"made   {out / name}.pem, {out / name}.key, {out / 'ca.pem'}")


def _settings(config: Path) -> "Settings":
    from controller.service.settings.settings import load_settings

    return load_settings(config)


def _new_passphrase() -> str:
    import secrets

    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_LETTERS))
    return "-".join(letters[at : at + _GROUP] for at in range(0, _LETTERS, _GROUP))


def _passphrase(source: str | None) -> str:
    return str(typer.prompt("Passphrase", hide_input=True)) if source is None else _read_passphrase(source)


def _read_passphrase(source: str) -> str:
    from controller.app.offline import read_secret

    return read_secret(source, "--passphrase-file")


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise CliError(f"{path}: cannot be read: {e.strerror}", ExitCode.USAGE) from e
    if len(content) > _MAX_FILE:
        raise CliError(f"{path}: larger than {_MAX_FILE} bytes", ExitCode.USAGE)
    return content


def _is_crl_base(url: str) -> bool:
    from urllib.parse import urlsplit

    from controller.domain.identity.certificates import host_fault

    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # brackets, or a port that is no number
        return False
    rest = parts.path.rstrip("/") + parts.query + parts.fragment
    return parts.scheme == "http" and not rest and "@" not in parts.netloc and not host_fault(host)


def _port(url: str) -> str:
    return url.rstrip("/").rpartition(":")[2] if url.count(":") > 1 else "80"
