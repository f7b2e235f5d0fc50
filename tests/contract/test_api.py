"""The API as a whole: credentials, unknown paths, and what describes the cluster."""

import httpx

from tests.contract.target import ANSWERS, Lab, answers_as, fails_as


def test_credentials(lab: Lab) -> None:
    base = lab.broker.api_urls[0] + "/api/v5"
    with httpx.Client(trust_env=False) as plain:
        fails_as("no credentials", plain.get(f"{base}/nodes"))
        fails_as("wrong key", plain.get(f"{base}/nodes", auth=("nobody", "nothing")))
        fails_as("wrong key", plain.get(f"{base}/nodes", auth=(lab.broker.key, "nothing")))
    fails_as("api keys need a dashboard login", lab.api.get("/api_key"))


def test_an_unknown_path(lab: Lab) -> None:
    fails_as("unknown path", lab.api.get("/nosuch"))


def test_status_needs_no_credentials(lab: Lab) -> None:
    with httpx.Client(trust_env=False) as plain:
        for path in ("/status", "/api/v5/status"):
            answer = plain.get(lab.broker.api_urls[0] + path)
            assert answer.status_code == ANSWERS["status"].status
            assert answer.headers["content-type"].startswith("text/plain")
            lines = answer.text.splitlines()
            assert lines[0].startswith("Node ")
            assert lines[0].endswith(" is started")
            assert lines[1] == "emqx is running"


def test_the_cluster_describes_itself(lab: Lab) -> None:
    nodes = answers_as("nodes", lab.api.get("/nodes"))
    assert len([n for n in nodes if n["node_status"] == "running"]) >= len(lab.broker.endpoints)
    cluster = answers_as("cluster", lab.api.get("/cluster"))
    assert sorted(cluster["nodes"]) == sorted(n["node"] for n in nodes if n["node_status"] == "running")
    assert len({api.get("/cluster").json()["self"] for api in lab.apis}) == len(lab.apis)
    answers_as("listeners", lab.api.get("/listeners"))
    answers_as("stats", lab.api.get("/stats", params={"aggregate": "true"}))
    answers_as("sys topics config", lab.api.get("/configs/sys_topics"))


def test_the_settings_cordon_reads(lab: Lab) -> None:
    zone = lab.api.get("/configs/global_zone").json()
    assert ANSWERS["mqtt global zone"].body["mqtt"].keys() <= zone["mqtt"].keys()
    assert zone["mqtt"]["max_inflight"] == 32
    settings = answers_as("authorization settings", lab.api.get("/authorization/settings"))
    assert {key: settings[key] for key in ("no_match", "deny_action")} == {"no_match": "allow", "deny_action": "ignore"}
    sources = answers_as("authorization sources", lab.api.get("/authorization/sources"))
    assert sources["sources"][0]["type"] == "built_in_database"
    chain = lab.api.get("/authentication")
    assert chain.status_code == 200
    if chain.json():
        answers_as("authentication chain", chain)
    one = lab.api.get("/listeners/tcp:default")
    assert (one.status_code, one.json()["id"]) == (200, "tcp:default")
