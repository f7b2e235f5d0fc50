"""Lists as files."""

import csv
import json

import pytest

from controller.api import exports
from tests.support.api import Api

BASE = "/api/v1/exports/devices"


async def test_every_match_is_in_the_file(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MAX_PAGE", 2)
    for number in range(5):
        await api.report(f"edge-{number}", ports=(23,) if number else ())
    await api.json("POST", "/api/v1/quarantine/edge-1/release", 200, {"reason": "-1+1|cmd"})
    contain = {"level": "isolated", "reason": "=HYPERLINK(1)"}
    await api.json("PUT", "/api/v1/quarantine/edge-1", 200, contain)
    answer = await api.client.get(f"{BASE}?rule=telnet")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="devices.csv"'
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["device_id"] for row in rows] == [f"edge-{number}" for number in range(1, 5)]
    assert (rows[0]["level"], rows[0]["reason"]) == ("isolated", "'=HYPERLINK(1)")
    assert (rows[1]["level"], rows[1]["failing"], rows[1]["proven"]) == ("restricted", "p/telnet", "False")
    lines = (await api.client.get(f"{BASE}?form=ndjson&level=none")).text.splitlines()
    listed = (await api.json("GET", "/api/v1/devices?level=none"))["items"]
    assert [json.loads(line) for line in lines] == listed
    await api.json("GET", f"{BASE}?form=xls", 422)
