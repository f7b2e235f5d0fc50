"""docker-compose.yml, without an engine: what each service may, what is published, EMQX settings by name."""

import re
from typing import Any, Final

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from controller.cli.app import app
from controller.service.settings.settings import MqttSettings
from tests.contract.target import ANSWERS, VARIABLES
from tests.support.compose import DEPLOY, ROOT, compose, script, services

OURS: Final = ("init", "setup", "controller", "agent-1", "agent-2", "contract", "demo")
NODES: Final = ("emqx1", "emqx2", "emqx3")
LAB: Final = ("lab1", "lab2", "lab3")
ONCE: Final = ("init", "setup", "contract", "demo")  # they end by themselves
SERVICES: Final = services()
PREPARE: Final = script("compose/prepare.py")
# Of EMQX's documentation and sources: the recording holds no answer that shows them.
NOT_RECORDED: Final = {
    "license.key",
    "api_key.bootstrap_file",
    "dashboard.listeners.http.bind",
    "cluster.discovery_strategy",
    "cluster.static.seeds",
    *(
        f"listeners.ssl.{name}.ssl_options.{key}"
        for name in ("default", "cordon")
        for key in ("cacertfile", "certfile", "keyfile", "verify", "fail_if_no_peer_cert")
    ),
    "listeners.ssl.cordon.zone",
}


def _recorded(name: str) -> Any:
    return ANSWERS[name].body


def _emqx_settings(service: str) -> dict[str, Any]:
    """EMQX's configuration paths with their values, as the environment gives them."""
    given = SERVICES[service]["environment"]
    return {
        name.removeprefix("EMQX_").lower().replace("__", "."): value
        for name, value in given.items()
        if name != "EMQX_NODE_NAME"
    }


def _kind(value: Any) -> str:
    text = str(value).lower()
    for kind, pattern in (
        ("bool", r"true|false"),
        ("number", r"\d+(\.\d+)?"),
        ("duration", r"\d+(ms|s|m|h|d)"),
        ("size", r"\d+(kb|mb|gb)"),
        ("address", r"([\d.]+:)?\d+"),
    ):
        if re.fullmatch(pattern, text):
            return kind
    return "word"


def _recorded_value(path: str) -> Any:
    """What the real EMQX answered for this path; KeyError where its answers hold no such key."""
    zone = _recorded("mqtt global zone")
    parts = path.split(".")
    if parts[0] == "mqtt":
        return zone["mqtt"][parts[1]]
    if parts[0] == "zones":
        return zone[parts[2]][parts[3]]
    if parts[0] == "listeners":
        assert parts[1] in {"tcp", "ssl", "ws", "wss"}
        return _recorded("listeners")[0][parts[3]]
    if parts[0] == "authorization":
        return {**_recorded("authorization settings"), **_recorded("authorization sources")}[parts[1]]
    raise KeyError(path)


@pytest.mark.parametrize("service", [NODES[0], LAB[0]])
def test_every_emqx_setting_has_a_name_and_a_kind_that_emqx_knows(service: str) -> None:
    unknown = set()
    for path, value in _emqx_settings(service).items():
        if path in {"authentication", "authorization.sources"}:
            continue  # rows, below
        try:
            recorded = _recorded_value(path)
        except (KeyError, IndexError):
            unknown.add(path)
            continue
        kinds = {_kind(value), _kind(recorded)}
        assert len(kinds) == 1 or kinds <= {"address", "number"}, f"{path}: {value!r}, recorded {recorded!r}"
    assert unknown <= NOT_RECORDED, unknown - NOT_RECORDED
    if service == NODES[0]:
        assert unknown == NOT_RECORDED


def _rows(text: str) -> list[dict[str, str]]:
    """The little HOCON that is used here: a list of flat objects."""
    found = re.findall(r"\{([^{}]*)\}", text)
    assert text.strip() == f"[{', '.join('{' + one + '}' for one in found)}]"
    return [dict(re.findall(r'(\w+)\s*=\s*"?([^",]+?)"?\s*(?:,|$)', one)) for one in found]


def test_the_rows_of_authentication_and_authorization_have_recorded_keys_and_values() -> None:
    for service in (NODES[0], LAB[0]):
        (source,) = _rows(SERVICES[service]["environment"]["EMQX_AUTHORIZATION__SOURCES"])
        recorded = _recorded("authorization sources")["sources"][0]
        assert source == {key: str(recorded[key]).lower() for key in ("type", "enable")}
    (chain,) = _rows(SERVICES[LAB[0]]["environment"]["EMQX_AUTHENTICATION"])
    recorded = _recorded("authentication chain")[0]
    same = ("mechanism", "backend", "user_id_type", "bootstrap_type")
    assert {key: chain[key] for key in same} == {key: recorded[key] for key in same}
    assert set(chain) - set(same) == {"bootstrap_file"}
    assert "bootstrap_file" in recorded


def test_the_cluster_lets_in_certificates_only_and_denies_what_no_rule_allows() -> None:
    settings = _emqx_settings(NODES[0])
    assert settings["authorization.no_match"] == "deny"
    assert settings["mqtt.peer_cert_as_clientid"] == "cn"
    assert [settings[f"listeners.{kind}.default.enable"] for kind in ("tcp", "ws", "wss")] == ["false"] * 3
    for name in ("default", "cordon"):
        assert settings[f"listeners.ssl.{name}.ssl_options.verify"] == "verify_peer"
        assert settings[f"listeners.ssl.{name}.ssl_options.fail_if_no_peer_cert"] == "true"
    listeners = {path.split(".")[2] for path in settings if path.startswith("listeners.ssl.")}
    assert listeners == {"default", "cordon"}
    assert settings["listeners.ssl.default.bind"].endswith(f":{PREPARE.DEVICE_PORT}")
    assert settings["listeners.ssl.cordon.bind"].endswith(f":{PREPARE.CONTROLLER_PORT}")


def test_the_controllers_zone_is_wider_than_what_the_controller_asks_for() -> None:
    settings, zone = _emqx_settings(NODES[0]), _recorded("mqtt global zone")
    wanted = MqttSettings(servers=("mqtts://x:1",))
    assert int(settings["zones.cordon.mqtt.max_inflight"]) >= wanted.receive_maximum
    assert int(settings["zones.cordon.mqtt.max_mqueue_len"]) > zone["mqtt"]["max_mqueue_len"]
    assert settings["zones.cordon.mqtt.session_expiry_interval"] == "2h"
    assert wanted.session_expiry == 2 * 3600
    shutdown = "zones.cordon.force_shutdown"
    mailbox = int(settings[f"{shutdown}.max_mailbox_size"])
    assert mailbox > zone["force_shutdown"]["max_mailbox_size"]


@pytest.mark.parametrize(("names", "domain"), [(NODES, "node"), (LAB, "lab")])
def test_nodes_are_told_apart_and_know_each_other(names: tuple[str, ...], domain: str) -> None:
    seeds = SERVICES[names[0]]["environment"]["EMQX_CLUSTER__STATIC__SEEDS"].strip("[]").split(", ")
    own = [SERVICES[name]["environment"]["EMQX_NODE_NAME"] for name in names]
    assert own == seeds == [f"emqx{n}@{domain}{n}.cordon.internal" for n in (1, 2, 3)]
    for name, node in zip(names, own, strict=True):
        for network in SERVICES[name]["networks"].values():
            assert network["aliases"] == [node.partition("@")[2]]
    shared = [dict(SERVICES[name]["environment"]) for name in names]
    for environment in shared:
        del environment["EMQX_NODE_NAME"]
    assert shared[0] == shared[1] == shared[2]


def test_the_scripts_name_the_nodes_that_there_are() -> None:
    assert list(PREPARE.NODES) == [f"node{n}.cordon.internal" for n in (1, 2, 3)]
    assert list(script("compose/run_tests.py").LAB) == [f"lab{n}.cordon.internal" for n in (1, 2, 3)]


def test_the_image_may_be_chosen() -> None:
    assert {SERVICES[name]["image"] for name in (*NODES, *LAB)} == {"${EMQX_IMAGE:-emqx/emqx:5.8.6}"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "1000:1000"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"} & set(service)
    assert service.get("network_mode", "none") == "none"
    assert not [one for one in service.get("volumes", []) if "docker.sock" in one or one.startswith("/")]
    if name in OURS:
        assert service["read_only"] is True
        assert service["tmpfs"]
    check = service["healthcheck"]
    assert check == {"disable": True} if name in ONCE else check["test"][0] == "CMD"


def test_every_service_is_accounted_for() -> None:
    assert set(SERVICES) == {*OURS, *NODES, *LAB}
    assert {name for name, one in SERVICES.items() if one.get("profiles") == ["tests"]} == {*LAB, "contract", "demo"}


def test_only_the_devices_listener_is_published_and_the_api_on_loopback() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert published == {
        "emqx1": ["${CORDON_MQTTS_PORT:-8883}:8883"],
        "controller": ["127.0.0.1:${CORDON_API_PORT:-8480}:8480"],
    }
    networks = compose()["networks"]
    assert networks["cluster"] == networks["lab"] == {"internal": True}
    assert {name for name, one in SERVICES.items() if "devices" in one.get("networks", ())} == {
        *NODES,
        "agent-1",
        "agent-2",
    }


def test_everybody_sees_their_own_secrets_only() -> None:
    mounted = {
        name: {one.split(":")[0] for one in service.get("volumes", []) if not one.startswith("./")}
        for name, service in SERVICES.items()
    }
    everything = mounted.pop("init")
    assert everything == set(PREPARE.FOLDERS)
    for name in NODES:
        assert mounted[name] == {"emqx", f"{name}-data"}
    assert mounted["controller"] == mounted["setup"] == {"controller", "store"}
    assert [mounted[name] for name in PREPARE.AGENTS] == [{name} for name in PREPARE.AGENTS]
    assert [mounted[name] for name in LAB] == [{"lab"}] * 3
    assert mounted["contract"] == mounted["demo"] == {"tests"}
    assert not [name for name, seen in mounted.items() if "authority" in seen]
    declared = set(compose()["volumes"])
    assert declared == everything.union(*mounted.values())


def test_no_secret_is_in_the_file() -> None:
    words = re.compile(r"password|secret|cookie|token|license", re.IGNORECASE)
    given = {
        (name, variable): value
        for name, service in SERVICES.items()
        for variable, value in (service.get("environment") or {}).items()
        if words.search(variable)
    }
    assert {variable for _, variable in given} == {"EMQX_LICENSE__KEY", "CORDON_TOKEN_FILE"}
    assert {value for (_, variable), value in given.items() if variable == "EMQX_LICENSE__KEY"} == {None}


def test_what_is_mounted_from_here_exists() -> None:
    own = {one.split(":")[0] for service in SERVICES.values() for one in service.get("volumes", []) if one[0] == "."}
    assert own == {"./deploy/compose/emqx.sh"}
    assert all((ROOT / path).is_file() for path in own)


def test_images_are_built_from_stages_that_exist_and_run_as_nobody_special() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE))
    parents = {child: parent for parent, child in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)}
    targets = {one["build"]["target"] for one in SERVICES.values() if "build" in one}
    assert targets == {"controller", "agent", "tests"}
    assert stages
    assert {parents[target] for target in targets} == {"base"}
    base = text.split("AS base\n")[1].split("\nFROM ")[0]
    assert "USER 1000:1000" in base
    for target in ("controller", "agent"):
        assert "HEALTHCHECK" in text.split(f"FROM base AS {target}\n")[1].split("\nFROM ")[0]
    for folder in PREPARE.FOLDERS:
        assert folder in base  # volumes take their owner from the image's folder
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert [path for line in copied for path in line.split() if not (ROOT / path).exists()] == []


def test_the_tests_profile_calls_what_exists() -> None:
    run = script("compose/run_tests.py")
    folder = ROOT / "tests" / "support"  # any folder: the files are looked at below
    with pytest.raises(FileNotFoundError):
        run.command("contract", folder, [])
    command: Any = get_command(app)
    assert "demo" in command.commands
    shown = CliRunner().invoke(app, ["demo", "--help"]).output
    for option in ("--emqx", "--key", "--mqtt", "--mqtt-user", "--fast"):
        assert option in shown
    assert set(VARIABLES) == {"API", "KEY", "SECRET", "MQTT", "MQTT_USER", "MQTT_PASSWORD"}
