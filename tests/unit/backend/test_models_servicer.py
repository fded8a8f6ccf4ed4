from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from backend.models_servicer import HostModelsServicer
from ktrdr.training.v1 import models_service_pb2 as pb
from ktrdr.training.v1 import models_service_pb2_grpc
from shared.rpc.errors import (
    FailedPreconditionError,
    ModelNotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from shared.rpc.host_channel import HostChannel
from shared.rpc.limits import RequestLimits
from shared.rpc.server import ServedService
from shared.training.conversion import model_to_proto
from shared.training.model_store import ModelListing, ModelUnreadableError, SavedModel
from shared.training.models_servicer import ModelsServicer
from shared.training.scaler import Scaler
from tests.support.answering import Answer, Answering, answering, channel_to
from tests.support.results import RESULT
from tests.support.rpc import TIMEOUT, failure_of, required, served, status_in

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SCALER = Scaler.fit(np.eye(2))
STOPPED = UnavailableError("It is stopping.", reason="PROCESS_STOPPING")
SPEAKING = FailedPreconditionError("No.", reason="MODEL_UNREADABLE")


def model(name: str, instance: str, minutes: int = 0) -> SavedModel:
    """A model trained by an instance, so many minutes after noon."""
    return SavedModel(
        name=name,
        path=Path("/models") / name,
        create_time=NOON + timedelta(minutes=minutes),
        size_bytes=10,
        strategy_yaml="name: small",
        features=("rsi",),
        scaler=SCALER,
        result=replace(RESULT, model_name=name, instance=instance),
    )


class Shelf:
    """A store of models that are only described."""

    def __init__(self, models: Sequence[SavedModel] = (), unreadable: Sequence[str] = ()) -> None:
        self.models = list(models)
        self.unreadable = list(unreadable)

    def get(self, name: str) -> SavedModel:
        """Return a model; raises ModelNotFoundError, ModelUnreadableError."""
        if name in self.unreadable:
            raise ModelUnreadableError(name, "half of it is missing")
        for each in self.models:
            if each.name == name:
                return each
        raise ModelNotFoundError(name)

    def list(self) -> ModelListing:
        """All of them, newest first."""
        ordered = sorted(self.models, key=lambda m: (m.create_time, m.name), reverse=True)
        return ModelListing(ordered, self.unreadable)


class Holding:
    """A backend that holds models, and hosts that do."""

    def __init__(self, resources: ExitStack) -> None:
        self._resources = resources
        self.own = Shelf()
        self._channels: list[HostChannel] = []
        self._stub: Any = None

    def _lead_to(self, address: str) -> str:
        self._channels.append(self._resources.enter_context(channel_to(address, "backend")))
        return address

    def host(
        self,
        *models: SavedModel,
        unreadable: Sequence[str] = (),
        limits: RequestLimits | None = None,
    ) -> str:
        """Serve a host's models in earnest; return its address."""
        shelf = Shelf(models, unreadable)
        service = serving(ModelsServicer(shelf, limits))  # type: ignore[arg-type]  # as a store
        return self._lead_to(self._resources.enter_context(served([service])).address)

    def scripted(self) -> Answering:
        """A host that answers what the test says."""
        host = self._resources.enter_context(answering())
        self._lead_to(host.address)
        return host

    def refusing(self, answer: Answer) -> str:
        """A host that answers everything so."""
        host = self.scripted()
        host.answer("GetModel", answer)
        host.answer("ListModels", answer)
        return host.address

    def down(self) -> str:
        """A host that is not there."""
        host = self.scripted()
        host.close()
        return host.address

    @property
    def stub(self) -> Any:
        """What a client calls the backend through, once its hosts are there."""
        if self._stub is None:
            own = ModelsServicer(self.own)  # type: ignore[arg-type]  # as a store
            service = serving(HostModelsServicer(own, self._channels))
            wire = self._resources.enter_context(served([service]))
            self._stub = models_service_pb2_grpc.ModelsServiceStub(wire.channel)
        return self._stub

    def page(self, **fields: Any) -> pb.ListModelsResponse:
        answer: pb.ListModelsResponse = self.stub.ListModels(
            pb.ListModelsRequest(**fields), timeout=TIMEOUT
        )
        return answer

    def get(self, name: str, instance: str = "") -> pb.GetModelResponse:
        answer: pb.GetModelResponse = self.stub.GetModel(
            pb.GetModelRequest(name=name, instance=instance), timeout=TIMEOUT
        )
        return answer

    def refusal(self, call: Callable[[], object]) -> error_details_pb2.ErrorInfo:
        """What a call is refused with."""
        return required(status_in(failure_of(call)), error_details_pb2.ErrorInfo)

    def pages(self, size: int) -> list[list[str]]:
        """The instances and names of every page, as a client reads them."""
        found, token = [], ""
        while True:
            page = self.page(page_size=size, page_token=token)
            found.append([f"{m.result.instance} {m.name}" for m in page.models])
            token = page.next_page_token
            if not token:
                return found


def serving(servicer: Any) -> ServedService:
    add = models_service_pb2_grpc.add_ModelsServiceServicer_to_server
    return ServedService("ktrdr.training.v1.ModelsService", servicer, add)


@pytest.fixture
def its() -> Iterator[Holding]:
    with ExitStack() as resources:
        yield Holding(resources)


# ---------------------------------------------------------------------- listings


def test_models_of_all_processes_come_newest_first(its: Holding) -> None:
    its.own.models = [model("a/1d_v1", "me", 3)]
    its.host(model("b/1d_v1", "one", 4), model("b/1d_v2", "one", 1))
    its.host(model("c/1d_v1", "two", 2))

    page = its.page()

    assert ["b/1d_v1", "a/1d_v1", "c/1d_v1", "b/1d_v2"] == [m.name for m in page.models]
    assert (4, "", []) == (page.total_count, page.next_page_token, list(page.unreachable))


def test_without_any_model_the_page_is_empty(its: Holding) -> None:
    its.host()

    assert pb.ListModelsResponse() == its.page()


def test_without_hosts_the_backends_own_are_listed(its: Holding) -> None:
    its.own.models = [model("a/1d_v1", "me")]

    assert [["me a/1d_v1"]] == its.pages(10)


@pytest.mark.parametrize("seed", range(6))
def test_pages_over_all_processes_hold_each_model_once_in_order(its: Holding, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # keeps no secret
    shelves: dict[str, list[SavedModel]] = {"me": [], "one": [], "two": []}
    for number in range(chance.randint(0, 14)):
        instance = chance.choice(list(shelves))
        name = f"s{number:02}/1d_v1"
        shelves[instance].append(model(name, instance, chance.randint(0, 5)))
    its.own.models = shelves["me"]
    its.host(*shelves["one"])
    its.host(*shelves["two"])
    everything = [each for models in shelves.values() for each in models]
    everything.sort(key=lambda each: (each.create_time, each.name), reverse=True)
    expected = [f"{each.result.instance} {each.name}" for each in everything]

    for size in (1, 3, 5, 50):
        pages = its.pages(size)
        assert expected == [name for page in pages for name in page]
        assert all(len(page) <= size for page in pages)
        assert len(expected) == its.page(page_size=size).total_count


@pytest.mark.parametrize("limits", [RequestLimits(page_rows=2), RequestLimits(page_bytes=1)])
def test_a_host_whose_pages_are_shorter_loses_none_of_its_models(
    its: Holding, limits: RequestLimits
) -> None:
    its.own.models = [model("a/1d_v1", "me", 0), model("a/1d_v2", "me", 9)]
    its.host(*(model(f"b/1d_v{number}", "one", number) for number in range(1, 6)), limits=limits)

    expected = ["me a/1d_v2", *(f"one b/1d_v{n}" for n in range(5, 0, -1)), "me a/1d_v1"]
    assert expected == [name for page in its.pages(50) for name in page]


def test_a_folder_that_several_processes_share_is_listed_once(its: Holding) -> None:
    shared = [model("a/1d_v1", "one", 1), model("a/1d_v2", "one", 2)]
    its.own.models = shared
    its.host(*shared)

    assert [["one a/1d_v2", "one a/1d_v1"]] == its.pages(10)
    assert [["one a/1d_v2"], ["one a/1d_v1"]] == its.pages(1)


def test_models_of_one_name_in_several_processes_are_all_listed(its: Holding) -> None:
    its.own.models = [model("a/1d_v1", "me", 1)]
    its.host(model("a/1d_v1", "one", 2))

    assert [["one a/1d_v1", "me a/1d_v1"]] == its.pages(10)


def test_what_cannot_be_read_is_named_wherever_it_is(its: Holding) -> None:
    its.own.unreadable = ["a/1d_v1"]
    its.host(unreadable=["b/1d_v1"])

    assert ["a/1d_v1", "b/1d_v1"] == list(its.page().unreadable)


@pytest.mark.parametrize("failed", ["down", "stopping", "malformed"])
def test_a_host_that_cannot_be_asked_is_named_and_the_others_are_listed(
    its: Holding, failed: str
) -> None:
    made: dict[str, Callable[[], str]] = {
        "down": its.down,
        "stopping": lambda: its.refusing(STOPPED),
        "malformed": lambda: its.refusing(ZeroDivisionError()),
    }
    target = made[failed]()
    its.host(model("a/1d_v1", "one"))

    page = its.page()

    assert (["a/1d_v1"], [target]) == ([m.name for m in page.models], list(page.unreachable))


def test_a_host_that_answers_nonsense_is_named_and_the_others_are_listed(its: Holding) -> None:
    spoilt = model_to_proto(model("b/1d_v1", "one"), whole=True)
    spoilt.create_time.seconds = 10**15
    host = its.scripted()
    host.answer("ListModels", pb.ListModelsResponse(models=[spoilt]))
    host.answer("GetModel", pb.GetModelResponse(model=spoilt))
    its.own.models = [model("a/1d_v1", "me")]

    page = its.page()

    assert (["a/1d_v1"], [host.address]) == ([m.name for m in page.models], list(page.unreachable))
    assert "a/1d_v1" == its.get("a/1d_v1").model.name
    assert "HOST_UNREACHABLE" == its.refusal(lambda: its.get("b/1d_v1")).reason


def test_a_host_that_is_silent_is_named_within_the_callers_time(its: Holding) -> None:
    gate = threading.Event()

    def when_open(_: object) -> Message:
        assert gate.wait(TIMEOUT)
        return pb.ListModelsResponse()

    silent = its.scripted()
    silent.answer("ListModels", when_open)
    its.host(model("a/1d_v1", "one"))

    page = its.stub.ListModels(pb.ListModelsRequest(), timeout=1.0)

    assert (["a/1d_v1"], [silent.address]) == ([m.name for m in page.models], page.unreachable)
    gate.set()


def test_hosts_are_asked_at_the_same_time_for_the_callers_page(its: Holding) -> None:
    all_asked = threading.Barrier(2)

    def with_the_other(_: object) -> Message:
        all_asked.wait(TIMEOUT)
        return pb.ListModelsResponse()

    hosts = [its.scripted(), its.scripted()]
    for host in hosts:
        host.answer("ListModels", with_the_other)
    assert [] == list(its.page(page_size=7).unreachable)

    assert [7, 7] == [host.calls("ListModels")[0].page_size for host in hosts]


def test_a_bad_page_token_is_the_callers_to_put_right(its: Holding) -> None:
    its.host()

    error: Any = failure_of(lambda: its.page(page_token="odd"))  # noqa: S106  # a place in a listing

    assert "INVALID_ARGUMENT" == error.code().name
    assert "page_token" in error.details()


def test_a_host_with_too_much_to_do_is_named_as_one_that_did_not_answer(its: Holding) -> None:
    its.refusing(ResourceExhaustedError("Too many.", reason="TOO_MANY_CALLS"))

    assert 1 == len(its.page().unreachable)


def test_an_address_that_leads_back_is_said_so(its: Holding) -> None:
    its.refusing(FailedPreconditionError("It leads back.", reason="PROXY_LOOP"))

    assert "PROXY_LOOP" == its.refusal(its.page).reason


# -------------------------------------------------------------------- one model


def test_a_model_is_found_wherever_it_is(its: Holding) -> None:
    its.own.models = [model("a/1d_v1", "me")]
    its.host(model("b/1d_v1", "one"))
    its.host(model("c/1d_v1", "two"))

    for name, instance in (("a/1d_v1", "me"), ("b/1d_v1", "one"), ("c/1d_v1", "two")):
        found = its.get(name).model
        assert (name, instance) == (found.name, found.result.instance)
        assert ("name: small", ["rsi"]) == (found.strategy_yaml, list(found.features))


def test_a_name_that_several_processes_use_needs_the_instance(its: Holding) -> None:
    its.own.models = [model("a/1d_v1", "me", 1)]
    its.host(model("a/1d_v1", "one", 2))

    refusal = its.refusal(lambda: its.get("a/1d_v1"))

    assert "MODEL_AMBIGUOUS" == refusal.reason
    assert {"name": "a/1d_v1", "instances": "me,one"} == dict(refusal.metadata)
    for instance in ("me", "one"):
        assert instance == its.get("a/1d_v1", instance).model.result.instance


def test_a_model_that_only_others_have_trained_is_not_said_to_be_missing(its: Holding) -> None:
    its.own.models = [model("a/1d_v1", "me")]
    its.host(model("a/1d_v1", "one"))

    status = status_in(failure_of(lambda: its.get("a/1d_v1", "two")))

    assert "MODEL_NOT_FOUND" == required(status, error_details_pb2.ErrorInfo).reason
    assert (
        "There is no model 'a/1d_v1' of an instance 'two' here. Without instance, GetModel "
        "(`ktrdr models show`) says whose there is."
    ) == status.message


def test_a_process_that_only_has_its_own_models_says_so_as_well() -> None:
    servicer = ModelsServicer(Shelf([model("a/1d_v1", "me")]))  # type: ignore[arg-type]  # as a store
    with served([serving(servicer)]) as wire:
        stub = models_service_pb2_grpc.ModelsServiceStub(wire.channel)
        request = pb.GetModelRequest(name="a/1d_v1", instance="two")
        error = failure_of(lambda: stub.GetModel(request, timeout=TIMEOUT))
    assert "There is no model 'a/1d_v1' of an instance 'two' here." in status_in(error).message


def test_a_model_in_a_folder_that_several_share_is_one(its: Holding) -> None:
    its.own.models = [model("a/1d_v1", "one")]
    its.host(model("a/1d_v1", "one"))

    assert "one" == its.get("a/1d_v1").model.result.instance


def test_a_model_that_nobody_holds_is_not_found(its: Holding) -> None:
    its.host(model("a/1d_v1", "one"))

    assert "MODEL_NOT_FOUND" == its.refusal(lambda: its.get("b/1d_v1")).reason
    assert "MODEL_NOT_FOUND" == its.refusal(lambda: its.get("a/1d_v1", "two")).reason


def test_a_model_that_is_not_found_while_a_host_is_down_may_be_there(its: Holding) -> None:
    its.host()
    target = its.down()

    refusal = its.refusal(lambda: its.get("a/1d_v1"))

    assert ("HOST_UNREACHABLE", target) == (refusal.reason, refusal.metadata["targets"])


def test_a_model_that_is_found_needs_no_other_host(its: Holding) -> None:
    its.down()
    its.host(model("a/1d_v1", "one"))

    assert "a/1d_v1" == its.get("a/1d_v1").model.name


def test_a_model_that_its_host_cannot_read_is_said_to_be_so(its: Holding) -> None:
    its.refusing(SPEAKING)

    assert "MODEL_UNREADABLE" == its.refusal(lambda: its.get("a/1d_v1")).reason


def test_a_model_that_one_cannot_read_is_given_by_another_that_can(its: Holding) -> None:
    its.own.unreadable = ["a/1d_v1"]
    its.host(unreadable=["b/1d_v1"])
    its.host(model("a/1d_v1", "two"), model("b/1d_v1", "two"))

    for name in ("a/1d_v1", "b/1d_v1"):
        assert "two" == its.get(name).model.result.instance


def test_a_model_that_the_backend_alone_has_and_cannot_read_is_said_to_be_so(
    its: Holding,
) -> None:
    its.own.unreadable = ["a/1d_v1"]
    its.host()
    its.down()

    assert "MODEL_UNREADABLE" == its.refusal(lambda: its.get("a/1d_v1")).reason


def test_a_model_without_a_name_is_asked_of_nobody(its: Holding) -> None:
    host = its.scripted()

    error: Any = failure_of(lambda: its.get(""))

    assert "INVALID_ARGUMENT" == error.code().name
    assert [] == host.calls("GetModel")
