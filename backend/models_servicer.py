"""Models from wherever they are: the backend's own and those of its training hosts.

A page token is a position in the order newest first, which every ModelsService
understands alike: the caller's goes to each of them as it is, and the newest of
what they answer is the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from ktrdr.training.v1 import model_pb2, models_service_pb2_grpc
from ktrdr.training.v1 import models_service_pb2 as pb
from shared.clock import Clock, SystemClock
from shared.rpc.deadline import deadline_of
from shared.rpc.errors import (
    FailedPreconditionError,
    HostUnreachableError,
    KtrdrError,
    MalformedAnswerError,
    ModelNotFoundError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from shared.rpc.host_channel import HostChannel
from shared.rpc.limits import RequestLimits
from shared.rpc.paging import fitting, page_size
from shared.training.models_servicer import ModelsServicer, next_token

ANSWER = 2.0
"""Seconds that hosts have to answer."""


class HostModelsServicer(models_service_pb2_grpc.ModelsServiceServicer):
    """Serves ktrdr.training.v1.ModelsService from the own store and the hosts."""

    def __init__(
        self,
        own: ModelsServicer,
        hosts: Sequence[HostChannel],
        clock: Clock | None = None,
        limits: RequestLimits | None = None,
    ) -> None:
        self._own = own
        self._limits = limits or RequestLimits()
        self._hosts = tuple(hosts)
        self._clock = clock or SystemClock()

    def GetModel(  # noqa: N802  # the contract's name
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        """Answer with the one model of this name, whoever holds it.

        One that cannot be read is in nobody's way who can be given another.
        """
        found: list[model_pb2.Model] = []
        refusals: list[KtrdrError] = []
        try:
            found.append(self._own.GetModel(request, context).model)
        except FailedPreconditionError as error:
            refusals.append(error)
        except ModelNotFoundError:
            pass
        answers, silent = self._ask("GetModel", request, context, refusals)
        found = _distinct([*found, *(answer.model for answer in answers)])
        if not found:
            raise _missing(request, refusals, silent)
        if len(found) > 1:
            raise _ambiguous(request.name, found)
        return pb.GetModelResponse(model=found[0])

    def ListModels(  # noqa: N802  # the contract's name
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """Answer with one page of all models, newest first."""
        limit = page_size(request.page_size, default=50, largest=self._limits.page_rows)
        own = self._own.ListModels(request, context)
        refusals: list[KtrdrError] = []
        answers, silent = self._ask("ListModels", request, context, refusals)
        if refusals and not answers:
            raise refusals[0]
        pages = [own, *answers]
        models = _distinct(model for page in pages for model in page.models)
        twice = sum(len(page.models) for page in pages) - len(models)
        models.sort(key=_place, reverse=True)
        # Whoever has more than fitted into his page has some that come after its last.
        ends = [_place(page.models[-1]) for page in pages if page.next_page_token and page.models]
        last = max(ends, default=None)
        told = [model for model in models if last is None or _place(model) >= last]
        rows = fitting(told[:limit], self._limits.page_bytes)
        more = len(models) > len(rows) or any(page.next_page_token for page in pages)
        return pb.ListModelsResponse(
            models=rows,
            next_page_token=next_token(rows[-1]) if more and rows else "",
            total_count=sum(page.total_count for page in pages) - twice,
            unreadable=dict.fromkeys(name for page in pages for name in page.unreadable),
            unreachable=silent,
        )

    def _ask(
        self,
        method: str,
        request: Any,
        context: grpc.ServicerContext,
        refusals: list[KtrdrError],
    ) -> tuple[list[Any], list[str]]:
        """Ask every host at once; return the answers, and the targets that gave none.

        A host that does not hold the model has answered; one that answers nonsense has
        not. One whose state forbids an answer is added to `refusals`; any other refusal
        is the caller's to know.
        """
        left = deadline_of(context, self._clock) - self._clock.monotonic()
        timeout = max(0.0, min(ANSWER, left * 0.8))
        stub = models_service_pb2_grpc.ModelsServiceStub
        calls = [(host.target, host.begin(stub, method, request, timeout)) for host in self._hosts]
        answers: list[Any] = []
        silent: list[str] = []
        for target, call in calls:
            try:
                answers.append(_checked(call.result()))
            except NotFoundError:
                continue
            except FailedPreconditionError as error:
                refusals.append(error)
                silent.append(target)
            except (UnavailableError, ResourceExhaustedError):
                silent.append(target)
        return answers, silent


def _checked(answer: Any) -> Any:
    """The answer, if its models can be put in order; else raises MalformedAnswerError."""
    models = [answer.model] if isinstance(answer, pb.GetModelResponse) else answer.models
    for model in models:
        try:
            _nanos(model)
        except ValueError as error:
            raise MalformedAnswerError("create_time is no time.") from error
    return answer


def _distinct(models: Iterable[model_pb2.Model]) -> list[model_pb2.Model]:
    """Leave out what a folder shared by several processes shows twice."""
    return list({(m.name, m.result.instance, _nanos(m)): m for m in models}.values())


def _place(model: model_pb2.Model) -> tuple[int, str]:
    """What a listing is sorted by, the greatest first."""
    return _nanos(model), model.name


def _nanos(model: model_pb2.Model) -> int:
    return model.create_time.ToNanoseconds()


def _missing(
    request: pb.GetModelRequest, refusals: Sequence[KtrdrError], silent: Sequence[str]
) -> KtrdrError:
    """Why no model can be given: what stands in the way weighs more than that none was found."""
    if refusals:
        return refusals[0]
    if silent:
        return HostUnreachableError(
            f"No model {request.name!r} was found, and not every host could be asked: "
            f"{', '.join(silent)}. Ask again once they answer.",
            metadata={"targets": ",".join(silent)},
        )
    return ModelNotFoundError(request.name, request.instance)


def _ambiguous(name: str, found: Sequence[model_pb2.Model]) -> KtrdrError:
    instances = [model.result.instance for model in found]
    return FailedPreconditionError(
        f"{len(found)} processes hold a model {name!r}: {', '.join(instances)}. Name one of them "
        "as instance (`ktrdr models show --instance`).",
        reason="MODEL_AMBIGUOUS",
        metadata={"name": name[:200], "instances": ",".join(instances)},
    )
