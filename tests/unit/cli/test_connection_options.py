"""The API's address and credentials: from options, environment and configuration, in this order."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from controller.api.client import ApiClient, ApiEndpoint
from controller.cli.config_files import InitAnswers, config_text
from controller.cli.connection_options import DEFAULT_URL, ConnectionOptions, connected, endpoint_of
from controller.cli.errors import CliError, ExitCode


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose API listens everywhere, with a token beside it."""
    answers = InitAnswers(
        tmp_path, tmp_path / "db", ("mqtt://a:1",), ("http://a:2",), "0.0.0.0:9999", "cordon-controller"
    )
    path = tmp_path / "cordon.toml"
    # Behind a proxy in the same container, as the option is meant.
    path.write_text(config_text(answers).replace("[api]\n", "[api]\nunsafe_plain_http = true\n"))
    (tmp_path / "operator.token").write_text("from-config\n")
    (tmp_path / "operator.token").chmod(0o600)
    return path


def test_the_environment_is_used_without_options() -> None:
    assert endpoint_of(ConnectionOptions(), {"CORDON_URL": "http://x:1", "CORDON_TOKEN": "t"}) == ApiEndpoint(
        "http://x:1", "t"
    )
    assert endpoint_of(ConnectionOptions(token="t", url=None), {"CORDON_TOKEN": "u", "CORDON_URL": ""}).token == "t"


def test_options_precede_the_environment_and_the_configuration(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text(" from-file \n")
    file.chmod(0o600)
    here = ConnectionOptions(config=config)
    assert endpoint_of(here, {}) == ApiEndpoint("http://127.0.0.1:9999", "from-config")
    assert endpoint_of(ConnectionOptions(), {"CORDON_CONFIG": str(config)}) == ApiEndpoint(
        "http://127.0.0.1:9999", "from-config"
    )
    assert endpoint_of(here, {"CORDON_TOKEN": "from-env"}).token == "from-env"
    assert endpoint_of(here, {"CORDON_TOKEN_FILE": str(file)}).token == "from-file"
    assert endpoint_of(ConnectionOptions(token_file=str(file)), {"CORDON_TOKEN": "from-env"}).token == "from-file"
    from_program = ConnectionOptions(token_file="command:echo from-manager")
    assert endpoint_of(from_program, {"CORDON_TOKEN": "from-env"}).token == "from-manager"
    assert endpoint_of(here, {"CORDON_TOKEN_FILE": f"file:{file}"}).token == "from-file"
    assert endpoint_of(ConnectionOptions(url="http://h:1", config=config), {}).url == "http://h:1"


def test_the_token_of_a_configuration_is_used_for_its_api_only(config: Path) -> None:
    assert endpoint_of(ConnectionOptions(url="http://elsewhere:1", config=config), {}).token is None
    assert endpoint_of(ConnectionOptions(url="http://127.0.0.1:9999", config=config), {}).token == "from-config"


def test_files_with_a_byte_order_mark_are_read(config: Path, tmp_path: Path) -> None:
    """As editors of Windows write them."""
    for file in (config, tmp_path / "operator.token"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert endpoint_of(ConnectionOptions(config=config), {}) == ApiEndpoint("http://127.0.0.1:9999", "from-config")


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"\xef\xbb\xbf"])
def test_an_empty_token_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(CliError, match="token") as caught:
        endpoint_of(ConnectionOptions(token_file=str(file), url=DEFAULT_URL), {})
    assert caught.value.code is ExitCode.USAGE


def test_files_that_others_can_read_or_change_are_errors(config: Path, tmp_path: Path) -> None:
    (tmp_path / "operator.token").chmod(0o640)
    with pytest.raises(CliError, match="chmod 600"):
        endpoint_of(ConnectionOptions(config=config), {})
    config.chmod(0o664)
    with pytest.raises(CliError, match="chmod go-w"):
        endpoint_of(ConnectionOptions(config=config), {})


def test_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="cannot be read"):
        endpoint_of(ConnectionOptions(token_file=str(tmp_path / "none"), url=DEFAULT_URL), {})
    with pytest.raises(CliError, match="cannot be read"):
        endpoint_of(ConnectionOptions(config=tmp_path / "none"), {})


def _shown(
    client: Callable[[], ApiClient], name: str, level: Annotated[str, typer.Option()] = "none", *, loud: bool = False
) -> None:
    typer.echo(f"{name} {level} {loud} {client().endpoint.url}")


def test_a_command_gets_the_shared_options_and_no_option_for_what_is_bound() -> None:
    app = typer.Typer()
    app.command("restrict")(connected(partial(_shown, level="restricted")))
    app.command("show")(connected(_shown))
    runner = CliRunner()
    result = runner.invoke(app, ["restrict", "edge-1", "--loud", "--url", "http://127.0.0.1:9"])
    assert result.output == "edge-1 restricted True http://127.0.0.1:9\n"
    assert runner.invoke(app, ["restrict", "edge-1", "--level", "isolated"]).exit_code == 2
    assert "--level" in runner.invoke(app, ["show", "--help"]).output
