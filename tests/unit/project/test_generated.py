"""What is generated is what its source says now."""

from schemas.export import documents
from tests.support.project_tree import ROOT


def test_json_schemas_and_asyncapi_are_those_of_the_models() -> None:
    expected = documents()
    assert len(expected) > 1
    folder = ROOT / "schemas"
    assert {name: (folder / name).read_text() for name in expected} == expected, "run `python -m schemas.export`"


def test_no_generated_schema_is_left_over() -> None:
    present = {f"json/{path.name}" for path in (ROOT / "schemas" / "json").iterdir()}
    assert present == {name for name in documents() if name.startswith("json/")}
