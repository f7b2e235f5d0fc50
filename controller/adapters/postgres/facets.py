"""What lists of devices filter and sort by, derived from each device's row by triggers, in its transaction.

A statement that writes devices fires one trigger for all its rows. A contact or a report writes no such row; a device
whose facets stay as they are writes nothing here.
"""

from typing import Final

_TEXT: Final = 'text COLLATE "C"'

_TABLES: Final = (
    # `words` is what a search looks in. `findings`: by rule that is not satisfied, its result and, unless it fails,
    # the detail. When the last contact was, of which agent, and whether it is stale, is in `contacts`.
    f"""CREATE TABLE device_facets (
        device_id {_TEXT} PRIMARY KEY, level smallint NOT NULL, online boolean, class {_TEXT} NOT NULL,
        tags jsonb NOT NULL, predicates jsonb NOT NULL, pending boolean NOT NULL, findings jsonb NOT NULL,
        failing integer NOT NULL, words {_TEXT} NOT NULL)
        WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02)""",
    # Only of what few devices are: other lists read the whole table, which costs less than an index for each device.
    "CREATE INDEX device_facets_contained ON device_facets (level) WHERE level > 0",
    "CREATE INDEX device_facets_pending ON device_facets (device_id) WHERE pending",
    "CREATE INDEX contacts_stale ON contacts (device_id) WHERE stale",
    # `name` is the rule without its policy.
    f"""CREATE TABLE device_findings (
        device_id {_TEXT}, rule {_TEXT}, name {_TEXT} NOT NULL, result {_TEXT} NOT NULL, detail {_TEXT} NOT NULL,
        PRIMARY KEY (device_id, rule))""",
    "CREATE INDEX device_findings_name ON device_findings (name, result)",
    f"CREATE TABLE device_tags (tag {_TEXT}, device_id {_TEXT}, PRIMARY KEY (tag, device_id))",
    "CREATE INDEX device_tags_device ON device_tags (device_id)",
)

# `jsonb` takes neither NUL nor half a pair of UTF-16, which JSON text may have: a device may not keep its own decision
# from being stored by a text with one.
_JSON: Final = r"""CREATE FUNCTION cordon_json(body text) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (CASE WHEN strpos(body, '\u') = 0 THEN body
        ELSE regexp_replace(body, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})', '\\ufffd', 'g') END)::jsonb $$"""

_DERIVED: Final = """SELECT device_id, online,
    CASE level WHEN 'none' THEN 0 WHEN 'restricted' THEN 1 ELSE 2 END AS level,
    coalesce(s.state ->> 'device_class', '') AS class, coalesce(s.state -> 'tags', '[]') AS tags,
    coalesce(s.state -> 'predicates', '[]') AS predicates, (s.state #>> '{pending,why}') IS NOT NULL AS pending,
    (SELECT coalesce(jsonb_object_agg(key, jsonb_build_array(value -> 'result',
        CASE value ->> 'result' WHEN 'fail' THEN '' ELSE value ->> 'detail' END)), '{}')
        FROM jsonb_each(s.state -> 'rules')) AS findings
    FROM written CROSS JOIN LATERAL (SELECT cordon_json(written.state) AS state OFFSET 0) s
    OFFSET 0"""
_COMPARED: Final = "level, online, class, tags, predicates, pending, findings"
_OF_DERIVED: Final = ", ".join(f"d.{name}" for name in _COMPARED.split(", "))
_FURTHER: Final = """(SELECT count(*) FROM jsonb_each(d.findings) WHERE value ->> 0 = 'fail'),
    lower(d.device_id || chr(10) || d.class || chr(10)
        || coalesce((SELECT string_agg(value, chr(10)) FROM jsonb_array_elements_text(d.tags)), ''))"""
_ADD: Final = f"INSERT INTO device_facets SELECT d.device_id, {_OF_DERIVED}, {_FURTHER} FROM ({_DERIVED}) d"  # noqa: S608 - constants
_CHANGE: Final = f"""UPDATE device_facets f SET ({_COMPARED}, failing, words) = ROW({_OF_DERIVED}, {_FURTHER})
    FROM ({_DERIVED}) d WHERE f.device_id = d.device_id
    AND ({", ".join(f"f.{name}" for name in _COMPARED.split(", "))}) IS DISTINCT FROM ({_OF_DERIVED})"""  # noqa: S608 - constants
_FINDINGS: Final = """INSERT INTO device_findings
    SELECT device_id, key, substr(key, strpos(key, '/') + 1), value ->> 0, value ->> 1
    FROM written CROSS JOIN jsonb_each(findings)"""
_TAGS: Final = "INSERT INTO device_tags SELECT DISTINCT value, device_id FROM written, jsonb_array_elements_text(tags)"


def _follow(table: str, column: str, insert: str) -> str:
    """Replaces the rows of devices in which the column changed."""
    return f"""changed := ARRAY(SELECT device_id
            FROM (SELECT device_id, {column} FROM written EXCEPT SELECT device_id, {column} FROM before) x);
        IF cardinality(changed) > 0 THEN
            DELETE FROM {table} WHERE device_id = ANY(changed);
            {insert} WHERE device_id = ANY(changed);
        END IF;"""  # noqa: S608 - constants


def _trigger(name: str, event: str, table: str, rows: str, body: str) -> tuple[str, str]:
    """A function and its trigger. A plan that was made for an empty table must not stay when the table has grown."""
    return (
        f"""CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql
        SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
        AS $$ DECLARE changed text[]; BEGIN {body} RETURN NULL; END $$""",
        f"""CREATE TRIGGER {name} AFTER {event} ON {table} REFERENCING {rows}
        FOR EACH STATEMENT EXECUTE FUNCTION {name}()""",
    )


FACETS: Final = (
    *_TABLES,
    _JSON,
    *_trigger("devices_added", "INSERT", "devices", "NEW TABLE AS written", f"{_ADD};"),
    *_trigger("devices_changed", "UPDATE", "devices", "NEW TABLE AS written", f"{_CHANGE};"),
    *_trigger(
        "devices_removed",
        "DELETE",
        "devices",
        "OLD TABLE AS gone",
        "".join(
            f"DELETE FROM {table} WHERE device_id IN (SELECT device_id FROM gone);"  # noqa: S608 - constants
            for table in ("device_facets", "device_findings", "device_tags")
        ),
    ),
    *_trigger("facets_added", "INSERT", "device_facets", "NEW TABLE AS written", f"{_FINDINGS}; {_TAGS};"),
    *_trigger(
        "facets_changed",
        "UPDATE",
        "device_facets",
        "OLD TABLE AS before NEW TABLE AS written",
        _follow("device_findings", "findings", _FINDINGS) + _follow("device_tags", "tags", _TAGS),
    ),
)
