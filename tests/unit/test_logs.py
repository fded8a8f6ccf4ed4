from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.logs import JsonFormatter, configure_logging


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    root, ktrdr = logging.getLogger(), logging.getLogger("ktrdr")
    handlers, levels = list(root.handlers), (root.level, ktrdr.level)
    root.handlers[:] = []  # or configuring would close the ones the test runner needs
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ktrdr.setLevel(levels[1])


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where standard error goes."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def documents(lines: io.StringIO) -> list[dict[str, Any]]:
    """What was logged, a document per line."""
    return [json.loads(line) for line in lines.getvalue().split("\n") if line]


def test_json_lines_parse(lines: io.StringIO) -> None:
    configure_logging("INFO", "json")
    logging.getLogger("ktrdr.rpc").info("Served %s in %d ms", "Größe 日", 5)
    (document,) = documents(lines)
    assert document["message"] == "Served Größe 日 in 5 ms"
    assert (document["level"], document["logger"]) == ("INFO", "ktrdr.rpc")
    assert datetime.fromisoformat(document["time"]).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "message", ["two\nlines", 'a "quoted" \\ text', "\x00\x1b[31m", "\udcff", "\u2028", "\r"]
)
def test_whatever_is_said_stays_on_one_line(lines: io.StringIO, message: str) -> None:
    configure_logging("INFO", "json")
    logging.getLogger("ktrdr").warning(message)
    text = lines.getvalue()
    assert (1, "\n") == (text.count("\n"), text[-1])
    assert [message] == [document["message"] for document in documents(lines)]


def test_exceptions_and_stacks_are_fields_of_the_line(lines: io.StringIO) -> None:
    configure_logging("INFO", "json")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("ktrdr").exception("It broke")
    logging.getLogger("ktrdr").warning("Where", stack_info=True)
    broke, where = documents(lines)
    assert "Traceback" in broke["exception"]
    assert "RuntimeError: broken" in broke["exception"]
    assert "test_exceptions_and_stacks" in where["stack"]
    assert "exception" not in where


def test_text_lines_are_for_people(lines: io.StringIO) -> None:
    configure_logging("INFO", "text")
    logging.getLogger("ktrdr.rpc").warning("Careful with %s", "this")
    assert lines.getvalue().endswith(" WARNING ktrdr.rpc: Careful with this\n")


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_level_is_that_of_ktrdr(lines: io.StringIO, level: str) -> None:
    configure_logging(level, "json")
    ktrdr, others = logging.getLogger("ktrdr.any"), logging.getLogger("somebody.else")
    for name in ("DEBUG", "INFO", "WARNING", "ERROR"):
        ktrdr.log(getattr(logging, name), "ours")
        others.log(getattr(logging, name), "theirs")
    said = [(document["message"], document["level"]) for document in documents(lines)]
    names = ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert [("ours", name) for name in names[names.index(level) :]] == [
        entry for entry in said if entry[0] == "ours"
    ]
    assert [entry for entry in said if entry[0] == "theirs"] == [
        ("theirs", "WARNING"),
        ("theirs", "ERROR"),
    ]


def test_configuring_twice_logs_once(lines: io.StringIO) -> None:
    configure_logging("INFO", "text")
    configure_logging("INFO", "json")
    logging.getLogger("ktrdr").info("once")
    assert ["once"] == [document["message"] for document in documents(lines)]


def test_the_formatter_leaves_the_record_as_it_is() -> None:
    record = logging.LogRecord("ktrdr", logging.INFO, __file__, 1, "a %s", ("b",), None)
    before = dict(vars(record))
    JsonFormatter().format(record)
    assert before == vars(record)
