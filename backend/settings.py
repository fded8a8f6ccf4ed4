"""Settings of the backend."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from shared.rpc.limits import KIB, MIB
from shared.settings import (
    Address,
    DataSettings,
    Folder,
    Target,
    Targets,
    TrainingSettings,
)


class BackendSettings(TrainingSettings, DataSettings):
    """What the backend reads from its environment."""

    backend_address: Address = "127.0.0.1:50051"
    """Where the backend listens; port 0 means any free one."""

    training_mode: Literal["local", "host"] = "local"
    """Whether trainings run in the backend itself or on training hosts."""

    training_hosts: Targets = Field(
        default=("127.0.0.1:50052",), validation_alias="TRAINING_HOST_SERVICE_URL"
    )
    """Where training hosts listen, comma separated; the least busy one gets the next training."""

    data_source: Literal["sample", "csv", "ib"] = "sample"
    """Where bars come from: the embedded sample, the folder KTRDR_CSV_FOLDER, or the IB host."""

    ib_host: Target = Field(default="127.0.0.1:50053", validation_alias="IB_HOST_SERVICE_URL")
    """Where the IB host listens; used with KTRDR_DATA_SOURCE=ib."""

    csv_folder: Folder | None = None
    """Folder of files named SYMBOL_timeframe.csv; needed by KTRDR_DATA_SOURCE=csv."""

    max_csv_bytes: int = Field(default=256 * MIB, ge=KIB, le=64 * 1024 * MIB)
    """Bytes a CSV file may have; each is read whole, and takes several times as much memory."""

    @property
    def called(self) -> tuple[str, ...]:
        """The hosts that work for this backend."""
        training = self.training_hosts if self.training_mode == "host" else ()
        return training + ((self.ib_host,) if self.data_source == "ib" else ())

    @model_validator(mode="after")
    def _csv_has_a_folder(self) -> Self:
        if self.data_source == "csv" and (self.csv_folder is None or not self.csv_folder.is_dir()):
            raise ValueError(
                "KTRDR_DATA_SOURCE=csv needs KTRDR_CSV_FOLDER to name a folder that is there "
                f"(got {self.csv_folder})"
            )
        return self
