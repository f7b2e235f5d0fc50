"""What lists of devices filter and sort by, derived from each device's row by triggers, in its transaction.

`device_facets` changes with a decision about the device, not with a contact or a report: those write no column that a
trigger or an index here refers to. A device's row that leaves its facets as they are writes nothing here.
"""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_TABLES: Final = (
    # `words` is what a search looks in. `findings`: result and, unless it fails, detail of each unsatisfied rule.
    """CREATE TABLE device_facets (
        device_id TEXT PRIMARY KEY, level INTEGER NOT NULL, stale INTEGER NOT NULL, online INTEGER,
        pending INTEGER NOT NULL, class TEXT NOT NULL, agent TEXT NOT NULL, failing INTEGER NOT NULL,
        words TEXT NOT NULL, tags TEXT NOT NULL, predicates TEXT NOT NULL, findings TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX device_facets_level ON device_facets (level)",
    "CREATE INDEX device_facets_class ON device_facets (class)",
    "CREATE INDEX device_facets_failing ON device_facets (failing)",
    "CREATE INDEX device_facets_stale ON device_facets (device_id) WHERE stale = 1",
    "CREATE INDEX device_facets_pending ON device_facets (device_id) WHERE pending = 1",
    # `name` is the rule without its policy.
    """CREATE TABLE device_findings (
        device_id TEXT NOT NULL, rule TEXT NOT NULL, name TEXT NOT NULL, result TEXT NOT NULL, detail TEXT NOT NULL,
        PRIMARY KEY (device_id, rule)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX device_findings_name ON device_findings (name, result)",
    """CREATE TABLE device_tags (
        tag TEXT NOT NULL, device_id TEXT NOT NULL, PRIMARY KEY (tag, device_id)) STRICT, WITHOUT ROWID""",
    # Of each stored report, which may be newer than the device's row: to read it there costs a page a device.
    """CREATE TABLE report_times (
        device_id TEXT PRIMARY KEY, accepted INTEGER NOT NULL, at REAL NOT NULL) STRICT, WITHOUT ROWID""",
)

_FILL_FACETS: Final = """
    INSERT INTO device_facets
    SELECT {row}.device_id,
        CASE {row}.level WHEN 'none' THEN 0 WHEN 'restricted' THEN 1 ELSE 2 END,
        {row}.stale, {row}.online, json_extract({row}.state, '$.pending') IS NOT NULL,
        coalesce(json_extract({row}.state, '$.device_class'), ''), {row}.agent,
        (SELECT count(*) FROM json_each({row}.state, '$.rules') WHERE json_extract(value, '$.result') = 'fail'),
        lower({row}.device_id || char(10) || coalesce(json_extract({row}.state, '$.device_class'), '') || char(10)
            || coalesce((SELECT group_concat(value, char(10)) FROM json_each({row}.state, '$.tags')), '')),
        coalesce(json_extract({row}.state, '$.tags'), '[]'), coalesce(json_extract({row}.state, '$.predicates'), '[]'),
        (SELECT json_group_object(key, json_array(json_extract(value, '$.result'),
            CASE json_extract(value, '$.result') WHEN 'fail' THEN '' ELSE json_extract(value, '$.detail') END))
            FROM json_each({row}.state, '$.rules'))
    {source}
    ON CONFLICT (device_id) DO UPDATE SET level = excluded.level, stale = excluded.stale, online = excluded.online,
        pending = excluded.pending, class = excluded.class, agent = excluded.agent, failing = excluded.failing,
        words = excluded.words, tags = excluded.tags, predicates = excluded.predicates, findings = excluded.findings
        WHERE (level, stale, online, pending, class, agent, tags, predicates, findings) IS NOT (excluded.level,
            excluded.stale, excluded.online, excluded.pending, excluded.class, excluded.agent, excluded.tags,
            excluded.predicates, excluded.findings)
"""
_OF_THE_ROW: Final = _FILL_FACETS.format(row="new", source="WHERE true")
_OF_ALL: Final = _FILL_FACETS.format(row="devices", source="FROM devices WHERE true")
_FINDINGS: Final = """INSERT INTO device_findings
    SELECT new.device_id, key, substr(key, instr(key, '/') + 1), json_extract(value, '$[0]'),
    json_extract(value, '$[1]') FROM json_each(new.findings)"""
_TAGS: Final = "INSERT INTO device_tags SELECT DISTINCT value, new.device_id FROM json_each(new.tags)"
_REPORT_TIME: Final = """INSERT INTO report_times VALUES (new.device_id, new.accepted, new.reported_at)
    ON CONFLICT (device_id) DO UPDATE SET accepted = excluded.accepted, at = excluded.at"""
_NO_FINDINGS: Final = "DELETE FROM device_findings WHERE device_id = old.device_id"
_NO_TAGS: Final = (
    "DELETE FROM device_tags WHERE device_id = old.device_id AND tag IN (SELECT value FROM json_each(old.tags))"
)
_TRIGGERS: Final = (
    ("device_added AFTER INSERT ON devices", _OF_THE_ROW),
    ("device_changed AFTER UPDATE OF state ON devices", _OF_THE_ROW),
    ("device_removed AFTER DELETE ON devices", "DELETE FROM device_facets WHERE device_id = old.device_id"),
    ("facets_added AFTER INSERT ON device_facets", f"{_FINDINGS}; {_TAGS}"),
    (
        "findings_changed AFTER UPDATE OF findings ON device_facets WHEN old.findings <> new.findings",
        f"{_NO_FINDINGS}; {_FINDINGS}",
    ),
    ("tags_changed AFTER UPDATE OF tags ON device_facets WHEN old.tags <> new.tags", f"{_NO_TAGS}; {_TAGS}"),
    ("report_added AFTER INSERT ON reports", _REPORT_TIME),
    ("report_changed AFTER UPDATE OF reported_at ON reports", _REPORT_TIME),
    ("report_removed AFTER DELETE ON reports", "DELETE FROM report_times WHERE device_id = old.device_id"),
    ("facets_removed AFTER DELETE ON device_facets", f"{_NO_FINDINGS}; {_NO_TAGS}"),
)


@migration
def m0005_queries(db: sqlite_utils.Database) -> None:
    """Create the tables and triggers, and fill them from the devices there are."""
    for statement in _TABLES:
        db.execute(statement)
    for head, body in _TRIGGERS:
        db.execute(f"CREATE TRIGGER {head} BEGIN {body}; END")
    db.execute(_OF_ALL)
    db.execute("INSERT INTO report_times SELECT device_id, accepted, reported_at FROM reports")
