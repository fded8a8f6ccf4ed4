"""What TWS answers instead of data: codes, with the words it uses.

Clients tell some apart by their words alone, so the words matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

HISTORY = "Historical Market Data Service error message:"


@dataclass
class Refusal(Exception):  # noqa: N818  # an answer to the client, not a defect of ours
    """Ends a request with an error message."""

    code: int
    text: str

    def anew(self) -> Refusal:
        """Return an equal one to raise: each time one is raised its traceback grows."""
        return replace(self)


def no_definition() -> Refusal:
    """Say that no contract, or more than one, fits."""
    return Refusal(200, "No security definition has been found for the request")


def not_valid(cause: str) -> Refusal:
    """Say that a request's fields are not acceptable."""
    return Refusal(321, f"Error validating request.-'bW' : cause - {cause}")


def history(text: str) -> Refusal:
    """Say what the service of historical data says."""
    return Refusal(162, HISTORY + text)


def no_data(contract: str, what: str) -> Refusal:
    """Say that there are no bars; `contract` is symbol@exchange."""
    return history(f"HMDS query returned no data: {contract} {what.capitalize()}")


def pacing() -> Refusal:
    """Say that requests come too fast."""
    return history("Historical data request pacing violation")


def query_cancelled(request_id: int) -> Refusal:
    """Confirm the end of a request that was cancelled."""
    return history(f"API historical data query cancelled: {request_id}")


def unknown_query(request_id: int) -> Refusal:
    """Say that there is no such request to cancel."""
    return Refusal(366, f"No historical data query found for ticker id:{request_id}")


def too_many_open(limit: int) -> Refusal:
    """Say that too many requests are open."""
    return Refusal(322, f"Only {limit} simultaneous API historical data requests allowed")


def too_many_messages(limit: int) -> Refusal:
    """Say that messages come too fast; TWS then likely hangs up."""
    return Refusal(
        100, f"Max rate of messages per second has been exceeded:max={limit} rec={limit + 1} (1)"
    )


def client_id_in_use() -> Refusal:
    """Say that another client is connected with this id; TWS then hangs up."""
    return Refusal(326, "Unable to connect as the client id is already in use.")


def bad_end() -> Refusal:
    """Say that the end of a request cannot be read."""
    return Refusal(
        10314,
        "End Date/Time: The date, time, or time-zone entered is invalid. The correct format is "
        "yyyymmdd hh:mm:ss xx/xxxx where yyyymmdd and xx/xxxx are optional. E.g.: 20031126 "
        "15:59:00 US/Eastern  Note that there is a space between the date and time, and between "
        "the time and time-zone.  If no date is specified, current date is assumed. If no "
        "time-zone is specified, local time-zone is assumed(deprecated).  You can also provide "
        "yyyymmddd-hh:mm:ss time is in UTC. Note that there is a dash between the date and time "
        "in UTC notation.",
    )


NO_TIME_ZONE = Refusal(
    2174,
    "Warning: You submitted request with date-time attributes without explicit time zone. Please "
    "switch to use yyyymmdd-hh:mm:ss in UTC or use instrument time zone, like US/Eastern. Implied "
    "time zone functionality will be removed in the next API release",
)
"""A warning: the data still come."""

SYSTEM_TEXTS = {
    1100: "Connectivity between IBKR and Trader Workstation has been lost.",
    1101: "Connectivity between IBKR and Trader Workstation has been restored - data lost.",
    1102: "Connectivity between IBKR and Trader Workstation has been restored - data maintained. "
    "All data farms are connected: usfarm; ushmds; secdefnj.",
    1300: "TWS socket port has been reset and this connection is being dropped.",
    2103: "Market data farm connection is broken:usfarm",
    2104: "Market data farm connection is OK:usfarm",
    2105: "HMDS data farm connection is broken:ushmds",
    2106: "HMDS data farm connection is OK:ushmds",
    2107: "HMDS data farm connection is inactive but should be available upon demand.ushmds",
    2108: "Market data farm connection is inactive but should be available upon demand.usfarm",
    2110: "Connectivity between Trader Workstation and server is broken. It will be restored "
    "automatically.",
    2119: "Market data farm is connecting:usfarm",
    2157: "Sec-def data farm connection is broken:secdefnj",
    2158: "Sec-def data farm connection is OK:secdefnj",
}
"""What TWS tells every client without being asked, by code."""
