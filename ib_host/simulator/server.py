"""The simulator as a whole: a server on a socket, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self, TypeVar

from ib_host.simulator.desk import Asked, Desk
from ib_host.simulator.faults import FaultPlan
from ib_host.simulator.history import History
from ib_host.simulator.listings import Listing
from ib_host.simulator.loop_thread import LoopThread
from ib_host.simulator.pacing import Pacing, PacingRules
from ib_host.simulator.source import BarSourceHistory, HistorySource
from shared.clock import Clock, SystemClock
from shared.marketdata.sample import SampleBarSource

T = TypeVar("T")


class TwsSimulator:
    """A TWS for clients that speak its socket protocol.

    `start` serves, `stop` ends; then it may be started again and listens where
    it did before, as a gateway that was restarted would. What was asked, the
    faults and the pacing are remembered over that. Only one thread may start and
    stop it; all else may be called from any thread while it runs.
    """

    def __init__(
        self,
        source: HistorySource | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rules: PacingRules | None = None,
        clock: Clock | None = None,
        faults: FaultPlan | None = None,
        listings: Iterable[Listing] | None = None,
    ) -> None:
        """Serve `source`, by default the embedded sample.

        Port 0 means any free one. Each series is listed as a currency pair or a
        stock, by its name, unless `listings` says what there is.
        """
        self.faults = faults or FaultPlan()
        self._clock = clock or SystemClock()
        if source is None:
            source = BarSourceHistory(SampleBarSource())
        self._history = History(source, self._clock, listings)
        self._pacing = Pacing(rules or PacingRules(), self._clock)
        self._host, self._port = host, port
        self._journal: list[Asked] = []
        self._running: LoopThread | None = None

    def start(self) -> str:
        """Listen and serve; return the address, host:port. Raises AddressError."""
        if self._running is not None:
            return self.address
        desk = Desk(self._history, self._pacing, self.faults, self._clock, self._journal)
        running = LoopThread(desk, self._host, self._port)
        self._port = running.start()
        self._running = running
        return self.address

    def stop(self) -> None:
        """Hang up on everybody and end the thread; does nothing if it has ended."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    @property
    def address(self) -> str:
        """Where it listens: host:port."""
        return f"{self._host}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on; what was asked for until it has been started."""
        return self._port

    @property
    def requests(self) -> Sequence[Asked]:
        """What has been asked so far, oldest first; of very many the latest."""
        return tuple(self._journal)

    @property
    def client_ids(self) -> Sequence[int]:
        """Who is connected."""
        return self._call(lambda desk: tuple(desk.clients))

    @property
    def open_requests(self) -> int:
        """How many requests count as open."""
        return self._call(lambda desk: desk.pacing.open_count)

    def announce(self, code: int) -> None:
        """Tell all clients a system message, such as 2103; it changes nothing else."""
        self._call(lambda desk: desk.announce(code))

    def lose_link(self) -> None:
        """Lose the servers (1100): requests go unanswered."""
        self._call(Desk.lose_link)

    def restore_link(self, code: int = 1102) -> None:
        """Reach the servers again: with 1101 waiting requests are lost, with 1102 answered."""
        self._call(lambda desk: desk.restore_link(code))

    def lose_farm(self) -> None:
        """Take the farm of historical data down (2105)."""
        self._call(lambda desk: desk.lose_farm(None))

    def restore_farm(self) -> None:
        """Bring the farm of historical data back (2106)."""
        self._call(Desk.restore_farm)

    def hang_up(self) -> None:
        """Close all connections; new ones are served."""
        self._call(Desk.hang_up)

    def _call(self, work: Callable[[Desk], T]) -> T:
        if self._running is None:
            raise RuntimeError("the simulator is not running; call start() first")
        return self._running.call(work)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
