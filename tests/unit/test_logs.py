from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.logs import JsonFormatter, configure_logging


@contextmanager
def configured(*configurations: tuple[str, str]) -> Iterator[io.StringIO]:
    """Configure logging, give what is written to standard error, put all back."""
    root, ktrdr = logging.getLogger(), logging.getLogger("ktrdr")
    handlers, levels = list(root.handlers), (root.level, ktrdr.level)
    root.handlers[:] = []  # or configuring would close the ones the test runner needs
    lines = io.StringIO()
    try:
        with redirect_stderr(lines):
            for level, log_format in configurations:
                configure_logging(level, log_format)
        yield lines
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ktrdr.setLevel(levels[1])


def documents(lines: io.StringIO) -> list[dict[str, Any]]:
    """What was logged, a document per line."""
    return [json.loads(line) for line in lines.getvalue().split("\n") if line]


def test_json_lines_parse() -> None:
    with configured(("INFO", "json")) as lines:
        logging.getLogger("ktrdr.rpc").info("Served %s in %d ms", "Größe 日", 5)
        (document,) = documents(lines)
        assert document["message"] == "Served Größe 日 in 5 ms"
        assert (document["level"], document["logger"]) == ("INFO", "ktrdr.rpc")
        assert datetime.fromisoformat(document["time"]).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "message", ["two\nlines", 'a "quoted" \\ text', "\x00\x1b[31m", "\udcff", "\u2028", "\r"]
)
def test_whatever_is_said_stays_on_one_line(message: str) -> None:
    with configured(("INFO", "json")) as lines:
        logging.getLogger("ktrdr").warning(message)
        text = lines.getvalue()
        assert (1, "\n") == (text.count("\n"), text[-1])
        assert [message] == [document["message"] for document in documents(lines)]


def test_exceptions_and_stacks_are_fields_of_the_line() -> None:
    with configured(("INFO", "json")) as lines:
        logging.getLogger("ktrdr").error("It broke", exc_info=RuntimeError("broken"))
        logging.getLogger("ktrdr").warning("Where", stack_info=True)
        broke, where = documents(lines)
        assert "RuntimeError: broken" in broke["exception"]
        assert "test_exceptions_and_stacks" in where["stack"]
        assert "exception" not in where


def test_text_lines_are_for_people() -> None:
    with configured(("INFO", "text")) as lines:
        logging.getLogger("ktrdr.rpc").warning("Careful with %s", "this")
        assert lines.getvalue().endswith(" WARNING ktrdr.rpc: Careful with this\n")


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_level_is_that_of_ktrdr(level: str) -> None:
    with configured((level, "json")) as lines:
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


def test_configuring_twice_logs_once() -> None:
    with configured(("INFO", "text"), ("INFO", "json")) as lines:
        logging.getLogger("ktrdr").info("once")
        assert ["once"] == [document["message"] for document in documents(lines)]


def test_the_formatter_leaves_the_record_as_it_is() -> None:
    record = logging.LogRecord("ktrdr", logging.INFO, __file__, 1, "a %s", ("b",), None)
    before = dict(vars(record))
    JsonFormatter().format(record)
    assert before == vars(record)
