"""Settings of the IB host."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from shared.settings import Address, DataSettings

SIMULATOR = "simulator"
"""Instead of an address: the gateway that needs no account."""


def _or_simulator(value: object, address: ValidatorFunctionWrapHandler) -> object:
    try:
        return value if value == SIMULATOR else address(value)
    except ValidationError as error:
        raise ValueError("must be host:port or simulator, such as 127.0.0.1:4002") from error


class IbHostSettings(DataSettings):
    """What the IB host reads from its environment."""

    ib_host_address: Address = "127.0.0.1:50053"
    """Where the IB host listens; port 0 means any free one."""

    ib_gateway: Annotated[Address, WrapValidator(_or_simulator)] = "127.0.0.1:4002"
    """host:port of the IB gateway or TWS; `simulator` embeds one that needs no account."""

    ib_client_id: int = Field(default=1, ge=0, le=999_999)
    """Id to connect with; if another program has it, the next free one is taken."""

    ib_connect_timeout: float = Field(default=10.0, gt=0, le=300, allow_inf_nan=False)
    """Seconds the gateway gets to accept a connection."""

    ib_timeout: float = Field(default=60.0, gt=0, le=3600, allow_inf_nan=False)
    """Seconds IB gets to answer a request, before it is asked again."""

    ib_outage: float = Field(default=300.0, ge=0, le=86_400, allow_inf_nan=False)
    """Seconds a load waits for a connection that is lost, before it fails."""

    ib_regular_hours: bool = True
    """Whether bars are of regular trading hours only, or of all hours there is trading."""
