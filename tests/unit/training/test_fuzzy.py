import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.training.fuzzy import membership

POINTS = st.integers(-1_000_000, 1_000_000).map(lambda number: number / 100)


@pytest.mark.parametrize(
    ("kind", "parameters", "value", "expected"),
    [
        ("triangular", (0, 20, 40), -1, 0.0),
        ("triangular", (0, 20, 40), 10, 0.5),
        ("triangular", (0, 20, 40), 20, 1.0),
        ("triangular", (0, 20, 40), 30, 0.5),
        ("triangular", (0, 20, 40), 41, 0.0),
        ("triangular", (0, 0, 40), -5, 1.0),
        ("triangular", (0, 40, 40), 45, 1.0),
        ("trapezoidal", (0, 10, 20, 40), 5, 0.5),
        ("trapezoidal", (0, 10, 20, 40), 15, 1.0),
        ("trapezoidal", (0, 10, 20, 40), 30, 0.5),
        ("trapezoidal", (0, 0, 20, 40), -100, 1.0),
        ("trapezoidal", (0, 10, 40, 40), 100, 1.0),
        ("gaussian", (50, 10), 50, 1.0),
        ("gaussian", (50, 10), 60, np.exp(-0.5)),
    ],
)
def test_membership_follows_the_shape(
    kind: str, parameters: tuple[float, ...], value: float, expected: float
) -> None:
    assert pytest.approx(expected) == membership(kind, parameters, np.array([float(value)]))[0]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("triangular", (0, 1, 2)), ("trapezoidal", (0, 1, 2, 3)), ("gaussian", (0, 1))],
)
def test_nan_stays_nan(kind: str, parameters: tuple[float, ...]) -> None:
    assert np.isnan(membership(kind, parameters, np.array([np.nan, 1.0]))).tolist() == [True, False]


@given(
    points=st.lists(POINTS, min_size=4, max_size=4).map(sorted),
    values=st.lists(POINTS, min_size=1, max_size=50),
)
def test_membership_lies_between_0_and_1(points: list[float], values: list[float]) -> None:
    for kind, parameters in (
        ("trapezoidal", points),
        ("triangular", points[:3]),
        ("gaussian", [points[0], abs(points[1]) + 0.01]),
    ):
        grades = membership(kind, parameters, np.array(values))
        assert ((grades >= 0) & (grades <= 1)).all()


@given(points=st.lists(POINTS, min_size=4, max_size=4).map(sorted))
def test_the_top_belongs_wholly(points: list[float]) -> None:
    tops = membership("trapezoidal", points, np.array(points[1:3]))

    assert [1.0, 1.0] == tops.tolist()


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown membership function 'round'"):
        membership("round", (0, 1), np.array([0.0]))
