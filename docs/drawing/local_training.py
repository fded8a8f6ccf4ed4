"""The picture of a training in the backend itself."""

from __future__ import annotations

from docs.drawing.sequence import Does, Lane, Phase, Process, Says, draw

DESCRIPTION = (
    "A client starts a training; the backend's operations service records it, registers its "
    "bridge and hands the work to a worker thread. The worker reports to the bridge and to "
    "nobody else. A client's GetOperation reads the bridge only if what is known is older "
    "than the cache's TTL; until then the answer is the cached one, with its age. When the "
    "work is done, its own thread claims the ending, drains the bridge, stores the record and "
    "only then publishes it."
)
LANES = (
    Lane("client", 92, "client", "ktrdr, grpcurl", 124),
    Lane("service", 340, "OperationsService", "cache, single flight", 186),
    Lane("bridge", 620, "ProgressBridge", "latest record, log", 170, "state"),
    Lane("worker", 852, "worker thread", "the training", 144, "report"),
)
STEPS = (
    Phase("Start", "answered at once, whatever the work takes"),
    Says("client", "service", "StartTraining(request_id)"),
    Does(
        "service", ("checked whole, recorded PENDING,", "bridge registered, work handed over"), 272
    ),
    Says("service", "client", "op_training_…, PENDING", answer=True),
    Phase("Work", "when nobody asks, nothing else happens"),
    Says("worker", "bridge", "on_batch, on_epoch", "report"),
    Does(
        "bridge",
        ("one attribute store or one append,", "below 1 µs: no lock, no formatting"),
        268,
        "state",
    ),
    Phase("A look", "any client, at any time"),
    Says("client", "service", "GetOperation(cursor)"),
    Does(
        "service",
        ("older than the TTL: one caller reads,", "others who need it share the read"),
        272,
    ),
    Says("service", "bridge", "snapshot(cursor)"),
    Says("bridge", "service", "state and metrics, of one instant", answer=True),
    Says("service", "client", "both, with their age", answer=True),
    Says("client", "service", "GetOperation, within the TTL"),
    Says("service", "client", "the same, cached: true", answer=True),
    Phase("The end", "on the worker's own thread"),
    Does("worker", ("returns its result,", "or raises"), 160, "report"),
    Says("worker", "service", "claim the ending, once", "report", passes="bridge"),
    Says("service", "bridge", "drain: read to its end"),
    Says("bridge", "service", "the last state and metrics", answer=True),
    Does(
        "service",
        ("result and all metrics are stored;", "only then COMPLETED is visible"),
        272,
        "record",
    ),
    Says("service", "client", "WaitOperation: COMPLETED", answer=True),
)


def picture() -> str:
    """Draw it."""
    processes = (Process("python -m backend", 186, 940),)
    return draw("A training in the backend", DESCRIPTION, LANES, processes, STEPS)
