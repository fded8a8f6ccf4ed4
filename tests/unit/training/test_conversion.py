from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage

from ktrdr.training.v1 import training_pb2
from shared.training.conversion import model_to_proto, pack_result
from shared.training.model_store import SavedModel
from shared.training.scaler import Scaler
from tests.support.results import RESULT

PATH = "/home/caf\udce9/models/small/1d_v1"


def test_the_result_of_a_training_in_a_folder_that_is_not_utf_8_is_told() -> None:
    packed = pack_result(replace(RESULT, model_path=PATH))
    message = training_pb2.TrainingResult()

    assert AnyMessage(type_url=packed.type_url, value=packed.value).Unpack(message)
    assert PATH.replace("\udce9", "?") == message.model_path


def test_a_model_in_a_folder_that_is_not_utf_8_is_listed() -> None:
    saved = SavedModel(
        name="small/1d_v1",
        path=Path(PATH),
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
        size_bytes=10,
        strategy_yaml="name: small",
        features=("rsi",),
        scaler=Scaler.fit(np.eye(2)),
        result=replace(RESULT, model_path=PATH),
    )

    assert PATH.replace("\udce9", "?") == model_to_proto(saved, whole=False).path
