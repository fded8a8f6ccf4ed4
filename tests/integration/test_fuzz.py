"""Whatever a client sends, it gets a code that is documented, soon, with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import grpc
import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from shared.training.orchestrator import TrainingOrchestrator
from tests.integration.refusals import Refusal, refusal_of
from tests.integration.running import running_backend
from tests.support.documented_codes import documented_codes
from tests.support.fuzz_messages import at_the_edges, mangled, messages, varied, wire_fields
from tests.support.fuzz_targets import Target, fuzz_targets, give_it_something
from tests.support.fuzz_values import odd_texts, texts, valid_fields
from tests.support.fuzzing import FACTOR, examples

HERE = "backend_here"
"""The one in this process, with an operation that runs."""
CHECK = "/grpc.health.v1.Health/Check"
GROWTH = 6.0
"""MiB that a process may grow by while it is fuzzed; a few calls in a thousand keep something."""
DEADLINE = 10.0
"""Seconds; none of the calls comes near them."""
WAITING = {
    "/ktrdr.operations.v1.OperationsService/WaitOperation": 0.5,
    "/google.longrunning.Operations/WaitOperation": 0.5,
}
"""Methods that may use up the time they are given, and how many seconds that is here."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Target]]:
    home = tmp_path_factory.mktemp("fuzz")
    with (
        fuzz_targets(home) as targets,
        running_backend(home / "here") as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(TrainingOrchestrator, "_run", _end_at_once)
        running.scripted.start_running().report_epochs(3)
        log = home / "here.log"
        log.touch()
        here = Target(HERE, os.getpid(), running.address, running.channel, log)
        yield [*targets, here]


def _end_at_once(_: TrainingOrchestrator) -> None:
    raise ValueError("this training was started by chance")


def test_every_method_that_is_served_is_fuzzed(targets: Sequence[Target]) -> None:
    served = {method for target in targets for method in target.methods}
    assert set(documented_codes()) == served


def requests(target: Target, method: str) -> SearchStrategy[bytes]:
    """What is sent to a method: messages, mangled messages, fields of all sorts, any bytes."""
    kind = target.methods[method].input_type
    valid = [target.request(method, **fields) for fields in valid_fields(kind)]
    near = st.sampled_from(valid).flatmap(lambda message: varied(message, texts))
    whole = messages(kind, texts)
    return st.one_of(
        near.map(serialized),
        near.map(serialized),
        whole.map(serialized),
        near.map(serialized).flatmap(mangled),
        whole.map(serialized).flatmap(mangled),
        st.tuples(near.map(serialized), wire_fields(kind)).map(b"".join),
        wire_fields(kind),
        st.binary(max_size=200),
    )


def serialized(message: Message) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def refusal(target: Target, method: str, data: bytes) -> Refusal | None:
    """How a call is refused; None if it is answered."""
    try:
        target.send(method, data, WAITING.get(method, DEADLINE))
    except grpc.RpcError as error:
        return refusal_of(error)
    return None


def check(target: Target, method: str, data: bytes) -> None:
    """Send bytes; fail unless what comes back is documented and says why."""
    refused = refusal(target, method, data)
    if refused is None:
        return
    if refused.code is StatusCode.DEADLINE_EXCEEDED and method in WAITING:
        return
    assert refused.code in documented_codes()[method], (target.kind, refused)
    assert refused.domain == "ktrdr", (target.kind, refused)
    assert refused.reason, (target.kind, refused)


def fuzz(target: Target, method: str, count: int) -> None:
    @examples(count)
    @given(data=requests(target, method))
    def every_request(data: bytes) -> None:
        check(target, method, data)

    every_request()


@pytest.mark.timeout(400)  # thousands of strategies are read; beside the soak that takes minutes
@pytest.mark.parametrize("method", documented_codes())
def test_every_field_is_tried_at_every_edge(targets: Sequence[Target], method: str) -> None:
    for target in targets:
        if method in target.methods and target.kind != HERE:
            kind = target.methods[method].input_type
            valid = target.request(method, **valid_fields(kind)[0])
            for message in at_the_edges(valid, odd_texts):
                check(target, method, serialized(message))


@pytest.mark.parametrize("method", documented_codes())
def test_only_documented_codes_come_back(targets: Sequence[Target], method: str) -> None:
    for target in targets:
        if method in target.methods:
            if target.kind != HERE:
                give_it_something(target)
            fuzz(target, method, 30)
            check(target, CHECK, b"")
            assert "Traceback" not in target.log.read_text("utf-8")


# ------------------------------------------------------------------- footprint


def test_memory_and_threads_stay_where_they_were(targets: Sequence[Target]) -> None:
    for target in targets:
        if target.kind == HERE:
            continue
        sent = list(_a_few_of_each(target))
        for _ in range(2):  # whatever is kept once, is kept by now
            _send_all(target, sent)
        memory, threads = target.status("VmRSS"), target.status("Threads")
        for _ in range(2 * FACTOR):
            _send_all(target, sent)
        grown = (target.status("VmRSS") - memory) / 1024
        assert grown < GROWTH, f"{target.kind} grew by {grown:.1f} MiB over {len(sent)} calls"
        assert target.status("Threads") <= threads + 8


def _a_few_of_each(target: Target) -> Iterator[tuple[str, bytes]]:
    for method, kind in target.methods.items():
        valid = target.request(method, **valid_fields(kind.input_type)[0])
        edges = list(at_the_edges(valid, odd_texts))
        for edge in edges[:: max(1, len(edges) // 20)]:
            yield method, serialized(edge)


def _send_all(target: Target, sent: Sequence[tuple[str, bytes]]) -> None:
    for method, data in sent:
        check(target, method, data)
    target.cancel_everything()
