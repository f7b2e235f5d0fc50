"""What lists of devices filter and sort by, derived from each device's row by triggers, in its transaction.

`device_facets` changes with a decision about the device, not with a contact or a report: those write no column that a
trigger or an index here refers to. A device's row that leaves its facets as they are writes nothing here.
"""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_TABLES: Final = (
    # `words` is what a search looks in. `labels`: class, tags, predicates, and why a containment is pending.
    # `findings`: result and, unless it fails, detail of each unsatisfied rule. The columns after these two follow.
    """CREATE TABLE device_facets (
        device_id TEXT PRIMARY KEY, level INTEGER NOT NULL, stale INTEGER NOT NULL, online INTEGER, agent TEXT NOT NULL,
        labels TEXT NOT NULL, findings TEXT NOT NULL, pending INTEGER NOT NULL, class TEXT NOT NULL,
        failing INTEGER NOT NULL, words TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    # Only of what few devices are: other lists read the whole table, which costs less than an index for each device.
    "CREATE INDEX device_facets_contained ON device_facets (level) WHERE level > 0",
    "CREATE INDEX device_facets_stale ON device_facets (stale) WHERE stale = 1",
    "CREATE INDEX device_facets_pending ON device_facets (pending) WHERE pending = 1",
    # `name` is the rule without its policy.
    """CREATE TABLE device_findings (
        device_id TEXT NOT NULL, rule TEXT NOT NULL, name TEXT NOT NULL, result TEXT NOT NULL, detail TEXT NOT NULL,
        PRIMARY KEY (device_id, rule)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX device_findings_name ON device_findings (name, result)",
    """CREATE TABLE device_tags (
        tag TEXT NOT NULL, device_id TEXT NOT NULL, PRIMARY KEY (tag, device_id)) STRICT, WITHOUT ROWID""",
)

_CLASS: Final = "coalesce(json_extract({row}.state, '$.device_class'), '')"
# What tells whether anything changed; each call parses the state once.
_COMPARED: Final = """CASE {row}.level WHEN 'none' THEN 0 WHEN 'restricted' THEN 1 ELSE 2 END,
    {row}.stale, {row}.online, {row}.agent,
    json_extract({row}.state, '$.device_class', '$.tags', '$.predicates', '$.pending.why'),
    (SELECT json_group_object(key, json_array(json_extract(value, '$.result'),
        CASE json_extract(value, '$.result') WHEN 'fail' THEN '' ELSE json_extract(value, '$.detail') END))
        FROM json_each({row}.state, '$.rules'))"""
_DERIVED: Final = f"""json_extract({{row}}.state, '$.pending.why') IS NOT NULL, {_CLASS},
    (SELECT count(*) FROM json_each({{row}}.state, '$.rules') WHERE json_extract(value, '$.result') = 'fail'),
    lower({{row}}.device_id || char(10) || {_CLASS} || char(10)
        || coalesce((SELECT group_concat(value, char(10)) FROM json_each({{row}}.state, '$.tags')), ''))"""  # noqa: S608 - constants
_INSERT: Final = f"INSERT INTO device_facets SELECT {{row}}.device_id, {_COMPARED}, {_DERIVED}"
_ADD: Final = _INSERT.format(row="new")
_UPDATE: Final = f"""UPDATE device_facets
    SET (level, stale, online, agent, labels, findings, pending, class, failing, words) = ({_COMPARED}, {_DERIVED})
    WHERE device_id = {{row}}.device_id AND (level, stale, online, agent, labels, findings) IS NOT ({_COMPARED})"""  # noqa: S608 - constants
_CHANGE: Final = _UPDATE.format(row="new")
_FINDINGS: Final = """INSERT INTO device_findings
    SELECT new.device_id, key, substr(key, instr(key, '/') + 1), json_extract(value, '$[0]'),
    json_extract(value, '$[1]') FROM json_each(new.findings)"""
_TAGS: Final = "INSERT INTO device_tags SELECT DISTINCT value, new.device_id FROM json_each(new.labels, '$[1]')"
_NO_FINDINGS: Final = "DELETE FROM device_findings WHERE device_id = old.device_id"
_NO_TAGS: Final = """DELETE FROM device_tags
    WHERE device_id = old.device_id AND tag IN (SELECT value FROM json_each(old.labels, '$[1]'))"""
_TRIGGERS: Final = (
    ("device_added AFTER INSERT ON devices", _ADD),
    ("device_changed AFTER UPDATE OF state ON devices", _CHANGE),
    ("device_removed AFTER DELETE ON devices", "DELETE FROM device_facets WHERE device_id = old.device_id"),
    ("facets_added AFTER INSERT ON device_facets", f"{_FINDINGS}; {_TAGS}"),
    (
        "findings_changed AFTER UPDATE OF findings ON device_facets WHEN old.findings <> new.findings",
        f"{_NO_FINDINGS}; {_FINDINGS}",
    ),
    ("labels_changed AFTER UPDATE OF labels ON device_facets WHEN old.labels <> new.labels", f"{_NO_TAGS}; {_TAGS}"),
    ("facets_removed AFTER DELETE ON device_facets", f"{_NO_FINDINGS}; {_NO_TAGS}"),
)


@migration
def m0005_queries(db: sqlite_utils.Database) -> None:
    """Create the tables and triggers, and fill them from the devices there are."""
    for statement in _TABLES:
        db.execute(statement)
    for head, body in _TRIGGERS:
        db.execute(f"CREATE TRIGGER {head} BEGIN {body}; END")
    db.execute(f"{_INSERT.format(row='devices')} FROM devices")
