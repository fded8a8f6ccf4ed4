"""How many files and connections the process may have open."""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger("ktrdr.process")

OWN_FILES = 512
"""Files that a process needs beside the connections of its clients."""


def make_room_for(connections: int) -> None:
    """Raise the limit of open files so that so many clients can be connected.

    A process that has none left can neither write its records nor be connected
    to. If the system does not allow as many, that is logged with the mend.
    """
    wanted = connections + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < wanted:
        logger.warning(
            "The system allows %d open files (ulimit -Hn), too few for %d connections; raise it, "
            "or set KTRDR_CONNECTION_LIMIT to %d",
            hard,
            connections,
            max(10, hard - OWN_FILES),
        )
