"""The references say what the contract and the docstrings say, all of it, as it is now."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from docs.reference.__main__ import FOLDER, REFERENCES, SECTIONS
from docs.reference.contract import Reference
from docs.reference.descriptors import MEMBER, MESSAGE, ProtoFile, read_contract
from docs.reference.markdown import anchor, paragraphs, plain, table
from shared.operations.bridge import ProgressBridge
from shared.operations.remote import RemoteOperationStub
from shared.operations.service import OperationsService


@pytest.fixture(scope="module")
def contract() -> list[ProtoFile]:
    return read_contract()


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_what_the_script_generates(name: str) -> None:
    assert REFERENCES[name]() == (FOLDER / name).read_text("utf-8"), "run make reference"


def test_every_method_field_and_value_of_the_contract_is_described(
    contract: list[ProtoFile],
) -> None:
    lines = Reference(contract).markdown().splitlines()
    for file in (file.descriptor for file in contract):
        for service in file.service:
            assert f"### {service.name}" in lines
            assert {f"#### {method.name}" for method in service.method} <= set(lines)
        for message in file.message_type:
            assert f"### {message.name}" in lines
            for field in message.field:
                assert any(line.startswith(f"| `{field.name}` | ") for line in lines)
        for enum in file.enum_type:
            for value in enum.value:
                assert any(
                    line.startswith(f"| `{value.name}` | {value.number} | ") for line in lines
                )


def test_nothing_is_described_without_words(contract: list[ProtoFile]) -> None:
    rows = [line for line in Reference(contract).markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [] == [row for row in rows if row.endswith("|  |")]


def test_types_lead_to_where_they_are_described(contract: list[ProtoFile]) -> None:
    text = Reference(contract).markdown()
    assert "| `progress` | [Progress](#progress) |" in text
    assert "| `values` | map of string to double |" in text
    assert "| `path` | repeated [Hop](#hop) |" in text
    assert "| `error` | [OperationError](#operationerror), one of `outcome` |" in text
    assert "| `percentage` | optional double |" in text
    assert "stream of [ReadBarsResponse](#readbarsresponse)" in text
    assert "its result is a [ktrdr.training.v1.TrainingResult](#trainingresult)" in text


def test_two_headings_with_one_anchor_are_refused() -> None:
    file = FileDescriptorProto(package="ktrdr.one.v1")
    file.message_type.add(name="Twice").field.add(name="again", type_name=".ktrdr.one.v1.Twice")
    file.enum_type.add(name="Twice")
    comments = {(MESSAGE, 0): "A message.", (MESSAGE, 0, MEMBER, 0): "A field."}

    with pytest.raises(ValueError, match="twice"):
        Reference([ProtoFile(file, comments)]).markdown()


@pytest.mark.parametrize("shown", [ProgressBridge, OperationsService, RemoteOperationStub])
def test_every_public_method_has_a_heading_and_its_docstring(shown: type) -> None:
    text = REFERENCES["python-reference.md"]()
    public = [name for name in vars(shown) if not name.startswith("_") and name != "cancel"]
    assert public
    for name in public:
        docstring = vars(shown)[name].__doc__
        assert f"#### {shown.__name__}.{name}\n" in text
        assert paragraphs(docstring)[0] in text


def test_signatures_name_types_and_defaults_one_a_line_where_they_are_long() -> None:
    text = REFERENCES["python-reference.md"]()
    assert "\nget_metrics(cursor: int = 0) -> tuple[list[Metric], int]\n" in text
    assert (
        "\n_update_state(percentage: float | None, message: str, **fields: object) -> None\n"
        in text
    )
    assert "\nowner: Owner\n" in text
    assert (
        "\nget_operation(\n    operation_id: str,\n    *,\n"
        "    max_staleness: float | None = None,\n    metrics_cursor: int = 0,\n"
        "    timeout: float,\n) -> OperationView\n"
    ) in text


def test_fields_are_told_with_the_string_under_them() -> None:
    text = REFERENCES["python-reference.md"]()
    row = "| `progress` | `Progress \\| None` | None before the first report. |"
    assert row in text
    assert "| `metrics` | `tuple[Metric, ...] = ()` |  |" in text


def test_the_python_reference_shows_each_class_once() -> None:
    names = [shown.name for section in SECTIONS for shown in section.classes]
    assert len(set(names)) == len(names)


def test_text_becomes_markdown_that_means_no_more_than_it_says() -> None:
    assert "`a|b` x \\| y \\<z" == plain("`a|b` x | y <z")
    assert ["one two", "three"] == paragraphs(" one\n two\n \n three\n")
    assert ["| a | b |", "|---|---|", "| 1 | 2 |"] == list(table(("a", "b"), [("1", "2")]))
    assert "ktrdroperationsv1" == anchor("ktrdr.operations.v1")
