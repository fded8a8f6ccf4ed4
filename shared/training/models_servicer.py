"""The gRPC face of the model store."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc

from ktrdr.training.v1 import model_pb2, models_service_pb2_grpc
from ktrdr.training.v1 import models_service_pb2 as pb
from shared.rpc.errors import InvalidArgumentError, ModelNotFoundError
from shared.rpc.limits import RequestLimits
from shared.rpc.paging import decode_time, decode_token, encode_token, fitting, page_size
from shared.rpc.server import ServedService
from shared.training.conversion import model_to_proto
from shared.training.model_store import ModelStore, SavedModel

MAX_INSTANCE = 64


class ModelsServicer(models_service_pb2_grpc.ModelsServiceServicer):
    """Serves ktrdr.training.v1.ModelsService."""

    def __init__(self, models: ModelStore, limits: RequestLimits | None = None) -> None:
        self._models = models
        self._limits = limits or RequestLimits()

    def GetModel(  # noqa: N802  # the contract's name
        self,
        request: pb.GetModelRequest,
        context: grpc.ServicerContext,  # noqa: ARG002  # gRPC's signature
    ) -> pb.GetModelResponse:
        """Answer with one model, whole."""
        if not request.name:
            raise InvalidArgumentError.of("name", "is required: {strategy}/{timeframe}_v{N}")
        if len(request.instance) > MAX_INSTANCE:
            raise InvalidArgumentError.of("instance", f"must be at most {MAX_INSTANCE} characters")
        model = self._models.get(request.name)
        if not model.result.instance.startswith(request.instance):
            raise ModelNotFoundError(request.name, request.instance)
        return pb.GetModelResponse(model=model_to_proto(model, whole=True))

    def ListModels(  # noqa: N802  # the contract's name
        self,
        request: pb.ListModelsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002  # gRPC's signature
    ) -> pb.ListModelsResponse:
        """Answer with one page of models, newest first."""
        limit = page_size(request.page_size, default=50, largest=self._limits.page_rows)
        after = _after(request.page_token)
        listing = self._models.list()
        rest = [model for model in listing.models if _is_older(model, after)]
        rows = (model_to_proto(model, whole=False) for model in rest[:limit])
        models = fitting(rows, self._limits.page_bytes)
        return pb.ListModelsResponse(
            models=models,
            next_page_token=next_token(models[-1]) if len(rest) > len(models) else "",
            total_count=len(listing.models),
            unreadable=listing.unreadable,
        )


def next_token(last: model_pb2.Model) -> str:
    """The token of the page that follows a model: a position, which every process understands."""
    created = last.create_time.ToDatetime(tzinfo=UTC)
    return encode_token([created.isoformat(), last.name], ())


def _after(token: str) -> tuple[datetime, str] | None:
    position = decode_token(token, (), parts=2)
    return None if position is None else (decode_time(position[0]), position[1])


def _is_older(model: SavedModel, after: tuple[datetime, str] | None) -> bool:
    """Whether a model comes after the page's end in the order newest first."""
    return after is None or (model.create_time, model.name) < after


def models_service(servicer: models_service_pb2_grpc.ModelsServiceServicer) -> ServedService:
    """The service as whoever has models, or knows who has, serves it."""
    return ServedService(
        "ktrdr.training.v1.ModelsService",
        servicer,
        models_service_pb2_grpc.add_ModelsServiceServicer_to_server,
    )
