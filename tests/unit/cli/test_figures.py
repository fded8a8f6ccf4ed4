import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from backend.cli import figures


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.42 s"),
        (7.25, "7.2 s"),
        (12.3, "12 s"),
        (59.7, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3720, "1 h 02 min"),
    ],
)
def test_a_length_of_time_is_as_fine_as_it_matters(seconds: float, text: str) -> None:
    assert text == figures.length(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.031, "0.03s"),
        (0.42, "0.4s"),
        (9.97, "10s"),
        (59.7, "1m"),
        (125, "2m05s"),
        (725, "12m"),
        (5_400, "1h30m"),
        (93_600, "1d2h"),
    ],
)
def test_in_a_narrow_column_a_length_of_time_is_written_as_it_is_typed(
    seconds: float, text: str
) -> None:
    assert text == figures.short(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "about 1 s left"), (7.2, "about 8 s left"), (125, "about 2 min 05 s left")],
)
def test_remaining_time_is_told_as_a_guess(seconds: float, text: str) -> None:
    assert text == figures.remaining(seconds)


def test_instants_are_told_in_utc() -> None:
    time = Timestamp(seconds=1_706_696_525)
    assert figures.moment(time) == "2024-01-31 10:22:05 UTC"
    assert figures.minute(time) == "2024-01-31 10:22"
    assert figures.day(time) == "2024-01-31"


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (12_345, "12.3 kB"), (2_500_000, "2.5 MB")]
)
def test_sizes_have_a_unit(count: int, text: str) -> None:
    assert text == figures.size(count)


def test_durations_count_their_nanoseconds() -> None:
    assert figures.seconds_of(Duration(seconds=2, nanos=500_000_000)) == 2.5
