"""The doctor's judgement: what is well with an operation, what is not, and what to do.

Three questions are answered apart, because they have different causes and mends:
does its host answer, does its worker live, does it go at its own pace? A host that
does not answer says nothing about the worker.
"""

from __future__ import annotations

import re

from backend.cli.cadence import Cadence, cadence_of
from backend.cli.figures import length, short
from backend.cli.host_sign import NOT_ACCEPTED, host_sign
from backend.cli.observation import STORE_AWAY, Observation
from backend.cli.signs import WAIT, Diagnosis, Remedy, Sign, where
from ktrdr.operations.v1 import operation_pb2

SLOW = 10.0
"""Times its usual duration after which a step is slow."""
LEAST_LAG = {operation_pb2.OPERATION_TYPE_TRAINING: 120.0}
"""Seconds below which nothing is slow, by type: what is quick may be held up for a moment."""
LEAST_LAG_OTHERWISE = 300.0
"""The same for all else; a load may wait a while for an answer of its provider."""
LEAST_CANCELLING = 60.0
"""Seconds a worker has, at least, to notice that it should stop."""

_PENDING = operation_pb2.OPERATION_STATUS_PENDING
_CANCELLING = operation_pb2.OPERATION_STATUS_CANCELLING
_UNKNOWN = Sign("UNKNOWN", "unknown")


def diagnose(observation: Observation, stale_after: float) -> Diagnosis:
    """Judge what was seen of one open operation.

    `stale_after` is how long a worker may say nothing, whatever its pace, in seconds.
    """
    return Diagnosis(
        observation.operation,
        host_sign(observation),
        _worker(observation),
        _progress(observation, stale_after),
    )


# ---------------------------------------------------------------------- the worker


def _worker(observation: Observation) -> Sign:
    operation, trouble = observation.operation, observation.trouble
    reason = trouble.reason if trouble is not None else ""
    if not observation.is_current:
        if reason == STORE_AWAY:
            return Sign("ENDED", "ended")  # what kept its end from being shown
        if not (reason in NOT_ACCEPTED and operation.status == _PENDING):
            return _UNKNOWN
    if operation.status == _PENDING:
        queued = observation.since(operation.create_time)
        text = f"queued {short(queued)}"
        return Sign("QUEUED", text, remedy=WAIT, facts={"queuedSeconds": queued})
    if not operation.HasField("liveness"):
        return _UNKNOWN
    if operation.liveness.worker_alive:
        return Sign("ALIVE", "alive")
    return Sign(
        "GONE",
        "gone",
        "Its worker's thread is gone and has not said how the work ended.",
        Remedy(
            "see log",
            f"See the log of {where(observation)}. Restarting it ends the operation FAILED; then "
            "start the work again.",
        ),
    )


# -------------------------------------------------------------------- the progress


def _progress(observation: Observation, stale_after: float) -> Sign:
    operation, trouble = observation.operation, observation.trouble
    if not observation.is_current:
        unrecorded = trouble is not None and trouble.reason == STORE_AWAY
        return Sign("ENDED", "ended") if unrecorded else _UNKNOWN
    if operation.status == _PENDING:
        return Sign("QUEUED", "-")
    cadence = cadence_of(operation, observation.metrics)
    if operation.HasField("liveness") and not operation.liveness.worker_alive:
        ago = "" if cadence.silence is None else f" {short(cadence.silence)}"
        return Sign("STOPPED", f"stopped{ago}", facts=_facts(operation, cadence))
    if operation.status == _CANCELLING:
        return _cancelling(observation, cadence, stale_after)
    return _at_work(observation, cadence, stale_after)


def _at_work(observation: Observation, cadence: Cadence, stale_after: float) -> Sign:
    """How a worker that lives, and is to go on, gets on."""
    operation, silence = observation.operation, cadence.silence
    facts = _facts(operation, cadence)
    if silence is None:
        silence = observation.since(operation.start_time) if operation.HasField("start_time") else 0
    if silence >= stale_after:
        return _silent(observation, silence, facts)
    if _is_slow(operation, cadence):
        return _slow(operation, cadence, facts)
    return _steady(operation, cadence, facts)


def _silent(observation: Observation, silence: float, facts: dict[str, str | float]) -> Sign:
    return Sign(
        "SILENT",
        f"silent {short(silence)}",
        f"Its worker has reported nothing for {length(silence)}.",
        Remedy(
            "cancel it",
            f"See the log of {where(observation)}; if it does not go on, cancel it:",
            _cancel(observation.operation),
        ),
        facts,
    )


def _is_slow(operation: operation_pb2.Operation, cadence: Cadence) -> bool:
    if cadence.usual is None or cadence.lag is None:
        return False
    least = LEAST_LAG.get(operation.type, LEAST_LAG_OTHERWISE)
    return cadence.lag >= max(SLOW * cadence.usual, cadence.least, least)


def _slow(
    operation: operation_pb2.Operation, cadence: Cadence, facts: dict[str, str | float]
) -> Sign:
    lag, usual = cadence.lag or 0.0, cadence.usual or 0.0
    return Sign(
        "SLOW",
        f"slow {short(lag)}",
        f"It has waited {length(lag)} for the next {cadence.unit}, which usually takes "
        f"{length(usual)}.",
        Remedy(
            "wait",
            "Wait, and see what else its machine is doing; if it does not go on, cancel it:",
            _cancel(operation),
        ),
        facts,
    )


def _steady(
    operation: operation_pb2.Operation, cadence: Cadence, facts: dict[str, str | float]
) -> Sign:
    progress = operation.progress
    if waiting := _said_wait(operation):
        return Sign("WAITING", f"waits {short(waiting)}", remedy=WAIT, facts=facts)
    if cadence.silence is None:
        return Sign("STARTING", "starting", facts=facts)
    text = "ok"
    if cadence.usual is not None:
        text = f"ok {short(cadence.usual)}/{cadence.unit}"
    elif progress.HasField("percentage"):
        text = f"ok {progress.percentage:.0f} %"
    return Sign("STEADY", text, facts=facts)


def _said_wait(operation: operation_pb2.Operation) -> float:
    """Seconds a load says it will wait, as for IB's pacing; 0 if it says nothing of the kind."""
    if operation.type != operation_pb2.OPERATION_TYPE_DATA_LOADING:
        return 0.0
    said = re.search(r"\bwaiting (\d{1,6}) s\b", operation.progress.message)
    return float(said[1]) if said else 0.0


def _cancelling(observation: Observation, cadence: Cadence, stale_after: float) -> Sign:
    """A worker notices at its next report, so its own pace says when it should have."""
    operation = observation.operation
    asked = observation.since(operation.cancel_time) if operation.HasField("cancel_time") else 0.0
    bound = min(stale_after, max(LEAST_CANCELLING, SLOW * (cadence.usual or 0.0)))
    text = f"cancelling {short(asked)}"
    facts = {**_facts(operation, cadence), "cancellingSeconds": asked}
    if asked < bound:
        return Sign("CANCELLING", text, remedy=WAIT, facts=facts)
    return Sign(
        "CANCELLING",
        text,
        f"It was told to stop {length(asked)} ago, and its worker has not noticed.",
        Remedy(
            "see log",
            f"See the log of {where(observation)}: what is the worker at? Restarting it ends "
            "the work.",
        ),
        facts,
    )


def _facts(operation: operation_pb2.Operation, cadence: Cadence) -> dict[str, str | float]:
    """What the judgement rests on."""
    known: dict[str, str | float | None] = {
        "message": operation.progress.message or None,
        "silentSeconds": cadence.silence,
        "lagSeconds": cadence.lag,
        "usualSeconds": cadence.usual,
        "usualOf": cadence.unit or None,
    }
    return {name: fact for name, fact in known.items() if fact is not None}


def _cancel(operation: operation_pb2.Operation) -> str:
    return f"ktrdr operations cancel {operation.operation_id}"
