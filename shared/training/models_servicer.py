"""The gRPC face of the model store."""

from __future__ import annotations

from datetime import datetime

import grpc

from ktrdr.training.v1 import models_service_pb2 as pb
from ktrdr.training.v1 import models_service_pb2_grpc
from shared.rpc.errors import InvalidArgumentError
from shared.rpc.paging import decode_time, decode_token, encode_token, page_size
from shared.training.conversion import model_to_proto
from shared.training.model_store import ModelStore, SavedModel


class ModelsServicer(models_service_pb2_grpc.ModelsServiceServicer):
    """Serves ktrdr.training.v1.ModelsService."""

    def __init__(self, models: ModelStore) -> None:
        self._models = models

    def GetModel(  # noqa: N802  # the contract's name
        self,
        request: pb.GetModelRequest,
        context: grpc.ServicerContext,  # noqa: ARG002  # gRPC's signature
    ) -> pb.GetModelResponse:
        """Answer with one model, whole."""
        if not request.name:
            raise InvalidArgumentError.of("name", "is required: {strategy}/{timeframe}_v{N}")
        return pb.GetModelResponse(model=model_to_proto(self._models.get(request.name), whole=True))

    def ListModels(  # noqa: N802  # the contract's name
        self,
        request: pb.ListModelsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002  # gRPC's signature
    ) -> pb.ListModelsResponse:
        """Answer with one page of models, newest first."""
        limit = page_size(request.page_size, default=50, largest=500)
        after = _after(request.page_token)
        listing = self._models.list()
        rest = [model for model in listing.models if _is_older(model, after)]
        token = ""
        if len(rest) > limit:
            last = rest[limit - 1]
            token = encode_token([last.create_time.isoformat(), last.name], ())
        return pb.ListModelsResponse(
            models=[model_to_proto(model, whole=False) for model in rest[:limit]],
            next_page_token=token,
            total_count=len(listing.models),
            unreadable=listing.unreadable,
        )


def _after(token: str) -> tuple[datetime, str] | None:
    position = decode_token(token, (), parts=2)
    return None if position is None else (decode_time(position[0]), position[1])


def _is_older(model: SavedModel, after: tuple[datetime, str] | None) -> bool:
    """Whether a model comes after the page's end in the order newest first."""
    return after is None or (model.create_time, model.name) < after
