"""The picture of a training on a host that the backend stands in for."""

from __future__ import annotations

from docs.drawing.sequence import Does, Lane, Phase, Process, Says, draw

DESCRIPTION = (
    "The backend records a training and its owner, a training host, before it tells the host "
    "to start it. From then on it holds a remote stub where a local training has a bridge. A "
    "client's GetOperation goes on to the host only if what the backend knows is too old, and "
    "on to the bridge only if what the host knows is too old as well; the ages of both hops "
    "add up. The host ends the work by itself. The backend learns of it, with the last "
    "metrics and the result, when it is next asked."
)
LANES = (
    Lane("client", 80, "client", "ktrdr, grpcurl", 116),
    Lane("backend", 296, "OperationsService", "RemoteOperationStub", 176),
    Lane("host", 562, "OperationsService", "the same code", 170),
    Lane("bridge", 752, "ProgressBridge", "latest, log", 136, "state"),
    Lane("worker", 884, "worker", "a thread", 88, "report"),
)
STEPS = (
    Phase("Start", "the owner is on record before it is told, so nothing runs unknown or twice"),
    Says("client", "backend", "StartTraining(abc)"),
    Says("backend", "host", "who are you, how busy?"),
    Says("host", "backend", "instance, incarnation, load", answer=True),
    Does("backend", ("PENDING, with its owner", "and host_operation_id"), 190, "record"),
    Says("backend", "host", "StartTraining(op_training_abc)"),
    Says("host", "backend", "host_training_op_training_abc", answer=True),
    Says("backend", "client", "op_training_abc", answer=True),
    Phase("Work", "on the host alone; no callback, no monitor, no poll"),
    Says("worker", "bridge", "on_epoch", "report"),
    Phase("A look", "as far as it must, no further"),
    Says("client", "backend", "GetOperation(cursor)"),
    Does("backend", ("older than 1 s: ask for half", "of what the caller accepts"), 216),
    Says("backend", "host", "max_staleness 0.5 s, cursor"),
    Does("host", ("older than that", "here as well"), 140),
    Says("host", "bridge", "snapshot(cursor)"),
    Says("bridge", "host", "state, metrics", answer=True),
    Says("host", "backend", "state, metrics, age, path", answer=True),
    Says("backend", "client", "ages and hops added", answer=True),
    Phase("The end", "found by asking: nobody tells the backend"),
    Does("host", ("drained, stored,", "then COMPLETED"), 146, "record"),
    Does("backend", ("still RUNNING here:", "nobody has asked"), 190),
    Says("client", "backend", "GetOperation"),
    Says("backend", "host", "GetOperation"),
    Says("host", "backend", "COMPLETED, last metrics, result", answer=True),
    Does("backend", ("adopted, stored,", "then COMPLETED"), 190, "record"),
    Says("backend", "client", "COMPLETED with result", answer=True),
)


def picture() -> str:
    """Draw it."""
    processes = (
        Process("python -m backend", 164, 420),
        Process("python -m training_host", 464, 940),
    )
    return draw("A training on a host", DESCRIPTION, LANES, processes, STEPS)
