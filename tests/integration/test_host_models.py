"""Models through a backend, from wherever they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest

from ktrdr.training.v1 import models_service_pb2 as pb
from shared.training.model_store import ModelStore, SavedModel, TrainedModel
from shared.training.scaler import Scaler
from shared.training.strategy import load_strategy
from tests.integration.hosted import backend_on
from tests.integration.refusals import refused
from tests.integration.running import SMALL, RunningBackend
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.relay import Relay
from tests.support.results import RESULT

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _save(store: ModelStore, instance: str, strategy: str, at: datetime) -> SavedModel:
    """Save a model as a training of this instance would."""
    trained = TrainedModel(
        strategy=load_strategy(SMALL.replace("name: small", f"name: {strategy}")),
        timeframe="1d",
        features=("f0", "f1"),
        scaler=Scaler.identity(2),
        weights={"layer": np.zeros((2, 2), dtype=np.float32)},
        result=replace(RESULT, instance=instance),
        create_time=at,
    )
    return store.save(trained)


def _model(host: ScriptedHost, strategy: str, hours: int = 0) -> SavedModel:
    """Save a model at a host, so many hours after the first."""
    return _save(host.models, host.instance.id, strategy, FIRST + hours * HOUR)


def _list(front: RunningBackend, **fields: object) -> pb.ListModelsResponse:
    answer: pb.ListModelsResponse = front.models.ListModels(
        pb.ListModelsRequest(**fields)  # type: ignore[arg-type]  # fields as a test names them
    )
    return answer


def _names(answer: pb.ListModelsResponse) -> list[str]:
    return [model.name for model in answer.models]


def _get(front: RunningBackend, name: str, instance: str = "") -> pb.GetModelResponse:
    answer: pb.GetModelResponse = front.models.GetModel(
        pb.GetModelRequest(name=name, instance=instance)
    )
    return answer


class TwoHosts:
    """Two hosts, each behind a network of its own, and a backend that trains on both."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.hosts = [stack.enter_context(scripted_host(home / f"host{n}")) for n in range(2)]
        self.relays = [stack.enter_context(closing(Relay(host.address))) for host in self.hosts]
        self.targets = [relay.address for relay in self.relays]
        self.front = stack.enter_context(backend_on(home / "backend", *self.targets))
        self.own = ModelStore(home / "backend" / "models")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[TwoHosts]:
    with ExitStack() as stack:
        yield TwoHosts(tmp_path, stack)


# ------------------------------------------------------------------------- listing


def test_models_of_all_hosts_and_the_backends_own_are_listed_newest_first(two: TwoHosts) -> None:
    first, second = two.hosts
    _model(first, "alpha", 1)
    _model(second, "beta", 3)
    _model(first, "gamma", 2)
    _save(two.own, "before", "delta", FIRST)  # of the time when the backend trained itself
    listed = _list(two.front)
    assert ["beta/1d_v1", "gamma/1d_v1", "alpha/1d_v1", "delta/1d_v1"] == _names(listed)
    assert [second.instance.id, first.instance.id, first.instance.id, "before"] == [
        model.result.instance for model in listed.models
    ]
    assert (4, "", [], []) == (
        listed.total_count,
        listed.next_page_token,
        list(listed.unreachable),
        list(listed.unreadable),
    )


def test_a_listed_model_is_as_its_host_tells_it(two: TwoHosts) -> None:
    saved = _model(two.hosts[0], "alpha")
    (model,) = _list(two.front).models
    assert (saved.name, str(saved.path)) == (model.name, model.path)
    assert saved.size_bytes == model.size_bytes
    assert saved.create_time == model.create_time.ToDatetime(tzinfo=UTC)
    assert "" == model.strategy_yaml, "only in GetModel"
    assert 688 == model.result.parameter_count


def test_no_models_anywhere_is_an_empty_list(two: TwoHosts) -> None:
    assert pb.ListModelsResponse() == _list(two.front)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_go_across_hosts_with_each_model_once(two: TwoHosts, size: int) -> None:
    stores = [(host.models, host.instance.id) for host in two.hosts] + [(two.own, "own")]
    saved = []
    for number in range(10):
        # In turn, then a run of one host alone, then two hosts at the very same time.
        store, instance = stores[number % 3 if number < 6 else number // 9]
        at = FIRST + min(number, 8) * HOUR
        saved.append(_save(store, instance, f"m{number}", at).name)

    names: list[str] = []
    token, pages = "", 0
    while True:
        page = _list(two.front, page_size=size, page_token=token)
        assert len(page.models) <= size
        assert 10 == page.total_count
        names += _names(page)
        pages += 1
        token = page.next_page_token
        if not token:
            break
    assert saved[::-1] == names
    assert -(-10 // size) == pages


def test_a_bad_page_size_and_a_bad_token_are_the_callers_to_know(two: TwoHosts) -> None:
    assert {"page_size"} == set(refused(lambda: _list(two.front, page_size=-1)).fields)
    refusal = refused(lambda: _list(two.front, page_token="x"))  # noqa: S106  # no password
    assert {"page_token"} == set(refusal.fields)


def test_a_model_that_cannot_be_read_is_named_and_hides_no_other(two: TwoHosts) -> None:
    _model(two.hosts[0], "alpha")
    broken = _model(two.hosts[1], "beta")
    (broken.path / "model.json").write_text("{", "utf-8")
    listed = _list(two.front)
    assert (["alpha/1d_v1"], ["beta/1d_v1"]) == (_names(listed), list(listed.unreadable))
    refusal = refused(lambda: _get(two.front, "beta/1d_v1"))
    assert (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_UNREADABLE") == (
        refusal.code,
        refusal.reason,
    )


def test_a_host_that_is_down_is_named_and_the_others_models_are_listed(two: TwoHosts) -> None:
    _model(two.hosts[0], "alpha")
    _model(two.hosts[1], "beta", 1)
    two.relays[0].cut()
    listed = _list(two.front)
    assert (["beta/1d_v1"], [two.targets[0]]) == (_names(listed), list(listed.unreachable))
    assert 1 == listed.total_count
    two.relays[0].restore()
    assert (["beta/1d_v1", "alpha/1d_v1"], []) == (
        _names(_list(two.front)),
        list(_list(two.front).unreachable),
    )


def test_a_host_that_says_nothing_is_named_within_the_callers_deadline(two: TwoHosts) -> None:
    _model(two.hosts[1], "beta")
    _list(two.front)  # the connections are there
    two.relays[0].freeze()
    listed = two.front.models.ListModels(pb.ListModelsRequest(), timeout=3)
    assert (["beta/1d_v1"], [two.targets[0]]) == (_names(listed), list(listed.unreachable))
    two.relays[0].thaw()


# ---------------------------------------------------------------------- one of them


def test_a_model_is_got_whole_from_the_host_that_holds_it(two: TwoHosts) -> None:
    saved = _model(two.hosts[1], "beta")
    _model(two.hosts[0], "alpha")
    model = _get(two.front, saved.name).model
    assert (saved.name, str(saved.path)) == (model.name, model.path)
    assert saved.strategy_yaml == model.strategy_yaml
    assert list(saved.features) == list(model.features)
    assert two.hosts[1].instance.id == model.result.instance


def test_the_backends_own_model_is_got_as_well(two: TwoHosts) -> None:
    saved = _save(two.own, "before", "delta", FIRST)
    assert str(saved.path) == _get(two.front, saved.name).model.path


def test_a_name_that_two_hosts_use_is_ambiguous_until_the_instance_is_named(
    two: TwoHosts,
) -> None:
    saved = [_model(host, "alpha", hours) for hours, host in enumerate(two.hosts)]
    ids = [host.instance.id for host in two.hosts]
    assert ["alpha/1d_v1"] * 2 == _names(_list(two.front))

    refusal = refused(lambda: _get(two.front, "alpha/1d_v1"))
    assert (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_AMBIGUOUS") == (
        refusal.code,
        refusal.reason,
    )
    assert set(ids) == set(refusal.metadata["instances"].split(","))
    assert all(instance in refusal.message for instance in ids)
    for model, instance in zip(saved, ids, strict=True):
        for named in (instance, instance[:12]):
            found = _get(two.front, "alpha/1d_v1", named).model
            assert (instance, str(model.path)) == (found.result.instance, found.path)
    unknown = refused(lambda: _get(two.front, "alpha/1d_v1", "nobody"))
    assert (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND") == (unknown.code, unknown.reason)


def test_a_name_that_no_host_knows_is_not_found(two: TwoHosts) -> None:
    refusal = refused(lambda: _get(two.front, "alpha/1d_v1"))
    assert (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND") == (refusal.code, refusal.reason)
    assert "alpha/1d_v1" == refusal.metadata["name"]


def test_a_name_that_a_silent_host_may_know_is_not_called_unknown(two: TwoHosts) -> None:
    saved = _model(two.hosts[0], "alpha")
    two.relays[0].cut()
    refusal = refused(lambda: _get(two.front, saved.name))
    assert (grpc.StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
    assert two.targets[0] == refusal.metadata["targets"]
    assert refusal.retry_after
    two.relays[0].restore()
    assert saved.name == _get(two.front, saved.name).model.name


def test_a_model_that_is_found_needs_no_silent_host(two: TwoHosts) -> None:
    saved = _model(two.hosts[1], "beta")
    two.relays[0].cut()
    assert str(saved.path) == _get(two.front, saved.name).model.path


def test_a_damaged_model_of_the_same_name_elsewhere_is_not_in_the_way(two: TwoHosts) -> None:
    whole, damaged = (_model(host, "alpha") for host in two.hosts)
    (damaged.path / "model.json").write_text("{", "utf-8")
    instance = two.hosts[0].instance.id
    assert str(whole.path) == _get(two.front, "alpha/1d_v1", instance).model.path


@pytest.mark.parametrize(
    ("name", "instance", "field"), [("", "", "name"), ("alpha/1d_v1", "x" * 65, "instance")]
)
def test_a_bad_question_is_refused_by_field(
    two: TwoHosts, name: str, instance: str, field: str
) -> None:
    refusal = refused(lambda: _get(two.front, name, instance))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert {field} == set(refusal.fields)


@pytest.mark.parametrize(
    "name", ["../host0/models/alpha/1d_v1", "/etc/passwd", "alpha", "alpha/1d_v1/.."]
)
def test_a_name_leads_nowhere_but_to_models(two: TwoHosts, name: str) -> None:
    _model(two.hosts[0], "alpha")
    assert "MODEL_NOT_FOUND" == refused(lambda: _get(two.front, name)).reason


# -------------------------------------------------------------------- shared folders


def test_a_folder_that_backend_and_host_share_is_listed_once(tmp_path: Path) -> None:
    with scripted_host(tmp_path) as host, backend_on(tmp_path, host.address) as front:
        saved = [_model(host, f"m{number}", number).name for number in range(5)]
        assert saved[::-1] == _names(_list(front))
        assert saved[-1] == _get(front, saved[-1]).model.name, "one model is not ambiguous"
        first = _list(front, page_size=2)
        second = _list(front, page_size=2, page_token=first.next_page_token)
        third = _list(front, page_size=2, page_token=second.next_page_token)
        assert [saved[4:2:-1], saved[2:0:-1], saved[:1]] == [
            _names(page) for page in (first, second, third)
        ]
        assert "" == third.next_page_token
