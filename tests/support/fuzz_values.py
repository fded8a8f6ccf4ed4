"""Texts that have broken other programs, and those that mean something to this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from shared.rpc.paging import encode_token

SMALL = (Path(__file__).parents[2] / "strategies" / "small.yaml").read_text("utf-8")
QUICK = SMALL.replace("epochs: 10", "epochs: 1")
"""A strategy whose training, should one begin, is over soon."""
THERE = "fuzz-0"
"""The request_id of a training and of a load that every process has carried out."""

PATHS = [
    *("../../etc/passwd", "/etc/passwd", "..", ".", "a/../b", "C:\\x", "a\x00b", "~", "%2e%2e/"),
    *("small/1d_v9999999999999999999", "/", "//", "-rf", "$(id)", "file:///etc", "con", "a" * 300),
]
SIGNS = [
    *("", "\x00", "\n", "\r\n", "\x1b[31m", "\u202e", "\ufeff", "\u2028", "é" * 300, "漢" * 260),
    *("😀" * 200, "x" * 5000, "x" * 100_000, "%s%n", "{0}", "'; DROP TABLE operations; --"),
]
VALUES = [
    *("0", "-1", "1e999", ".inf", ".nan", "~", "null", "true", "[]", "{}", "[[[[[[", "9" * 400),
    *("!!python/object:os.system", "&a [*a]", "2001-99-99", "2001-01-01", "0x7fffffffffffffff"),
    *("0x" + "f" * 5000, "0b" + "1" * 9000, ":".join("1" * 999), "!!timestamp x", "!!bool x"),
    *("!!map [1]", "!!int ''", "!!null x", "!!omap [a: 1]", "!!binary é"),
    *("!!binary aGVsbG8=", "!!set {a, b}", "? [a]", "a: b: c", "<<: *x", "1:2:3", "1_000", "'"),
    *("@", "`", "%", "- - - -", "|\n  text", "{a: 1, a: 2}", "99999999", "-0.0", "0o17", "1.5"),
]
HOSTILE: SearchStrategy[str] = st.one_of(
    st.sampled_from(PATHS + SIGNS + VALUES),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)


@st.composite
def mutated_yaml(draw: DrawFn, text: str = QUICK) -> str:
    """A strategy with a few of its lines or values lost, doubled, moved or replaced."""
    for _ in range(draw(st.integers(1, 3))):
        lines = text.splitlines()
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        line = lines[place] if lines else ""
        match draw(st.sampled_from(["value", "value", "lose", "double", "move", "insert", "cut"])):
            case "value":
                key, colon, _ = line.partition(": ")
                lines[place : place + 1] = [f"{key}{colon or ': '}{draw(HOSTILE)}"]
            case "lose":
                del lines[place : place + 1]
            case "double":
                lines[place:place] = [line]
            case "move":
                lines[place : place + 1] = ["  " * draw(st.integers(0, 30)) + line.strip()]
            case "insert":
                lines[place:place] = [draw(HOSTILE)]
            case _:
                lines[place : place + 1] = [line[: draw(st.integers(0, len(line)))]]
        text = "\n".join(lines)[:150_000]
    return text


MEANT: Mapping[str, SearchStrategy[str]] = {
    "operation_id": st.sampled_from(
        [
            *(f"op_training_{THERE}", f"op_data_{THERE}", f"host_training_{THERE}"),
            *(f"host_data_{THERE}", "op_training_scripted_0001", f"host_data_op_data_{THERE}"),
        ]
    ),
    "request_id": st.sampled_from([THERE, "", "fuzz-1", f"op_training_{THERE}", "op_data_"]),
    "session_id": st.sampled_from([THERE, f"op_training_{THERE}"]),
    "symbols": st.sampled_from(["IBM", "GOOG", "AAPL", "EURUSD", "ibm", "IBM "]),
    "symbol": st.sampled_from(["IBM", "GOOG", "AAPL", "ibm"]),
    "timeframe": st.sampled_from(["1d", "1h", "1w", "1D"]),
    "timeframes": st.sampled_from(["1d", "1h", "1w", "1D"]),
    "strategy_yaml": mutated_yaml(),
    "name": st.sampled_from(["small/1d_v1", "small/1d_v2", "small", "SMALL/1d_v1"]),
    "key": st.sampled_from(
        ["model.training.epochs", "indicators.0.period", "training_data.symbols", "a..b", "name"]
    ),
    "value": st.sampled_from(VALUES),
    "page_token": st.sampled_from(
        [
            encode_token(["2026-01-01T00:00:00+00:00", "x"], ([], [], False)),
            encode_token(["2026-01-01T00:00:00+00:00", "x"], ()),
            encode_token(["9999-12-31T23:59:59-23:59", ""], ()),
            encode_token(["0001-01-01T00:00:00+23:59", "\ud800"], ([], [], False)),
            encode_token(["\ud800", "1d"], ()),
            encode_token(["IBM", "1d"], ()),
        ]
    ),
    "file_containing_symbol": st.sampled_from(["ktrdr.operations.v1.OperationsService", "ktrdr"]),
    "service": st.sampled_from(["ktrdr.operations.v1.OperationsService", "no.such"]),
}
"""What means something in a field of this name."""


def texts(field: str) -> SearchStrategy[str]:
    """Texts for a field: as often something that means something there as anything else."""
    return st.one_of(MEANT[field], HOSTILE) if field in MEANT else HOSTILE


REPLACED = ("epochs: 10", "name: small")
"""Values of the small strategy that odd ones take the place of."""


def odd_texts(field: str) -> Sequence[str]:
    """Every text here that a field may be tried with, one after the other."""
    odd = PATHS + SIGNS + VALUES
    if field == "strategy_yaml":
        for given in REPLACED:
            key, _, _ = given.partition(":")
            odd += [SMALL.replace(given, f"{key}: {value}", 1) for value in VALUES]
    return odd


VALID: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "StartTrainingRequest": [
        {
            "strategy_yaml": QUICK,
            "symbols": ["IBM"],
            "timeframes": ["1d"],
            "start_time": {"seconds": 1_200_000_000},  # too few bars: it ends soon
            "end_time": {"seconds": 1_202_000_000, "nanos": 5},
            "seed": 7,
            "overrides": {"model.training.epochs": "1"},
        }
    ],
    "StartDataLoadRequest": [
        {
            "symbols": ["IBM", "GOOG"],
            "timeframe": "1d",
            "start_time": {"seconds": 1_325_376_000},
            "end_time": {"seconds": 1_335_376_000},
            "mode": 1,
        }
    ],
    "ReadBarsRequest": [{"symbol": "IBM", "timeframe": "1d", "limit": 10}],
    "GetModelRequest": [{"name": "small/1d_v1", "instance": "a"}],
    "GetTrainingStatusRequest": [{"session_id": THERE}],
    "ListOperationsRequest": [{"statuses": [1, 2], "types": [1], "page_size": 10}],
    "ServerReflectionRequest": [{"list_services": ""}],
    **{
        f"{name}Request": [
            {"operation_id": f"{prefix}{THERE}"}
            for prefix in ("op_training_", "op_data_", "host_training_", "host_data_")
        ]
        + [{"operation_id": "op_training_scripted_0001"}]
        for name in ("GetOperation", "GetMetrics", "CancelOperation", "WaitOperation")
    },
}
"""Fields of valid requests, by their kind; one of another kind begins empty."""
_STANDARD = "google.longrunning"
_NAMED = [{"name": f"operations/op_data_{THERE}"}, {"name": f"host_data_{THERE}"}]
_LISTED = [{"name": "operations", "filter": "done = false AND type = TRAINING", "page_size": 10}]


def valid_fields(kind: Descriptor) -> Sequence[Mapping[str, Any]]:
    """Fields of valid requests of a kind."""
    if kind.file.package == _STANDARD:
        return _LISTED if kind.name == "ListOperationsRequest" else _NAMED
    return VALID.get(kind.name, [{}])
