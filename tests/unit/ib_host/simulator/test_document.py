"""What docs/tws-simulator.md says is compared with what there is."""

from __future__ import annotations

import re
import shlex

import pytest

from ib_host.simulator.__main__ import _parser
from ib_host.simulator.faults import _EFFECTS, FAILURES, Moment
from tests.support.programs import ROOT

TEXT = (ROOT / "docs" / "tws-simulator.md").read_text("utf-8")
NAMED = set(re.findall(r"`([^`\n]+)`", TEXT))
LINES = [line for line in TEXT.splitlines() if line.startswith("--fault ")]


def test_every_option_of_the_program_is_named() -> None:
    options = {option for action in _parser()._actions for option in action.option_strings}

    named = {name.split()[0] for name in NAMED if name.startswith("--")}

    assert options - {"-h", "--help"} == named


def test_every_place_effect_and_error_is_named() -> None:
    effects = {name.partition(":")[0] for name in NAMED}

    assert {*Moment, *_EFFECTS, *FAILURES} <= effects


@pytest.mark.parametrize("line", LINES)
def test_every_fault_of_the_document_can_be_planned(line: str) -> None:
    arguments = shlex.split(line.partition("   ")[0])

    assert 1 == len(_parser().parse_args(arguments).fault)


def test_every_module_is_in_its_table() -> None:
    modules = {path.stem for path in (ROOT / "ib_host" / "simulator").glob("[a-z]*.py")}

    assert modules <= NAMED
