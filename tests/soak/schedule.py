"""The schedule: what is started, repeated, cancelled, deleted and broken, and when.

All of it is drawn from a seed. How far the processes are by then is not: a
schedule that is carried out again finds the same faults in the same order, not
at the same instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count, cycle
from random import Random

FRONT = "front"
"""The backend that leaves all work to hosts."""
ALONE = "alone"
"""The backend that does its work itself."""
BACKENDS = (FRONT, ALONE)
TRAINERS = ("trainer-1", "trainer-2")
IB_HOST = "ib"
HOSTS = (*TRAINERS, IB_HOST)

SEED = 58
"""Draws, for a minute, every fault and a fault of every process."""
_ENDLESS = 10_000
"""Epochs that outlast whoever waits for them: minutes."""
_SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")


class Kind(Enum):
    """What a work does."""

    TRAINING = "training"
    LOAD = "load"


@dataclass(frozen=True, slots=True)
class Work:
    """One request to start work."""

    request_id: str
    backend: str
    kind: Kind
    epochs: int = 0
    """Of a training."""
    symbols: tuple[str, ...] = ()
    """Of a load."""
    whole: bool = False
    """Whether a load is of everything there is; IB takes its time to tell where that begins."""

    @property
    def endless(self) -> bool:
        """Whether it only ends by being cancelled, or with its process."""
        return self.epochs == _ENDLESS

    @property
    def operation_id(self) -> str:
        """What its operation is called, by contract."""
        return f"op_{'training' if self.kind is Kind.TRAINING else 'data'}_{self.request_id}"


@dataclass(frozen=True, slots=True)
class Start:
    """Send the same request so many times at once."""

    work: Work
    copies: int = 1
    repeat: bool = False
    """Whether it has been sent before."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask the operation to stop."""

    work: Work


@dataclass(frozen=True, slots=True)
class Delete:
    """Have the operation forgotten, which is refused unless it has ended."""

    work: Work


class Fault(Enum):
    """What happens to a process."""

    KILL = "SIGKILL"
    STOP = "SIGTERM"
    FREEZE = "SIGSTOP"


@dataclass(frozen=True, slots=True)
class Break:
    """Kill or stop a process and start it again, or freeze it for some seconds."""

    process: str
    fault: Fault
    seconds: float = 0.0
    """How long a frozen one stays so."""


Action = Start | Cancel | Delete | Break


@dataclass(frozen=True, slots=True)
class Event:
    """One action and when, in seconds from the beginning."""

    at: float
    action: Action


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole soak, in order."""

    seed: int
    seconds: float
    events: tuple[Event, ...]

    @property
    def warm_at(self) -> float:
        """Seconds after which no backend is started again, so that its size can be compared."""
        return self.seconds / 3

    @property
    def warm_for(self) -> float:
        """Seconds in which a process reaches its size; what it grows by later is too much."""
        return self.seconds / 3

    def of(self, *kinds: type[Action]) -> tuple[Event, ...]:
        """The events with actions of these kinds."""
        return tuple(event for event in self.events if isinstance(event.action, kinds))


def draw_schedule(seed: int, seconds: float) -> Schedule:
    """Draw everything that will be done in so many seconds.

    Work comes in bursts, and something breaks while it runs: in the first third
    a backend, each in turn, or a host; later only hosts.
    """
    rng = Random(f"{seed}/schedule")  # noqa: S311  # no secret
    numbers, breaks = count(1), _breaks(rng, seconds / 3 - 6.0)
    events: list[Event] = []
    at = 0.5
    while at < seconds - 5.0:
        broken = breaks(at)
        # Either amid the starts or well into the work.
        events.append(Event(at + rng.choice((rng.uniform(0, 2), rng.uniform(2, 6))), broken))
        for work in _burst(rng, broken.process, numbers):
            events += _work_events(rng, work, at + rng.uniform(0.0, 1.5))
        at += rng.uniform(4.0, 7.0)
    within = [event for event in events if event.at <= seconds]
    return Schedule(seed, seconds, tuple(sorted(within, key=lambda event: event.at)))


def _burst(rng: Random, broken: str, numbers: Iterator[int]) -> Iterator[Work]:
    """Some work, one of it certain to run where something will be broken."""
    backend = broken if broken in BACKENDS else FRONT
    if broken == IB_HOST:
        yield _load(rng, f"{next(numbers):04}", backend, whole=True)
    else:
        yield Work(f"{next(numbers):04}", backend, Kind.TRAINING, epochs=_ENDLESS)
    for _ in range(rng.randint(2, 6)):
        yield _work(rng, f"{next(numbers):04}")


def _work(rng: Random, request_id: str) -> Work:
    backend = FRONT if rng.random() < 0.7 else ALONE
    if rng.random() < 0.65:
        epochs = _ENDLESS if rng.random() < 0.1 else rng.choice((3, 10, 30, 60, 120))
        return Work(request_id, backend, Kind.TRAINING, epochs=epochs)
    return _load(rng, request_id, backend, whole=rng.random() < 0.1)


def _load(rng: Random, request_id: str, backend: str, *, whole: bool) -> Work:
    symbols = tuple(rng.sample(_SYMBOLS, rng.randint(1, len(_SYMBOLS))))
    return Work(request_id, backend, Kind.LOAD, symbols=symbols, whole=whole)


def _work_events(rng: Random, work: Work, at: float) -> Iterator[Event]:
    """The start of a work, and what is done to it afterwards."""
    yield Event(at, Start(work, copies=rng.choice((1, 1, 1, 2, 3))))
    if rng.random() < 0.4:
        repeat = Start(work, copies=rng.choice((1, 2)), repeat=True)
        yield Event(at + rng.uniform(0.0, 20.0), repeat)
    if work.endless:
        yield Event(at + rng.uniform(4.0, 12.0), Cancel(work))
    elif rng.random() < 0.2:
        yield Event(at + rng.uniform(0.0, 4.0), Cancel(work))
    if rng.random() < 0.25:
        yield Event(at + rng.uniform(2.0, 25.0), Delete(work))


def _breaks(rng: Random, backends_until: float) -> Callable[[float], Break]:
    """Draws what breaks at an instant."""
    backends = cycle(rng.sample(BACKENDS, len(BACKENDS)))

    def draw(at: float) -> Break:
        if at < backends_until and rng.random() < 0.6:
            return Break(next(backends), rng.choice((Fault.KILL, Fault.KILL, Fault.STOP)))
        if rng.random() < 0.1:
            return Break(next(backends), Fault.FREEZE, rng.uniform(0.3, 1.5))
        fault = rng.choice((Fault.KILL, Fault.KILL, Fault.KILL, Fault.STOP, Fault.FREEZE))
        frozen = rng.uniform(0.5, 3.0) if fault is Fault.FREEZE else 0.0
        return Break(rng.choice((*TRAINERS, *HOSTS)), fault, frozen)

    return draw
