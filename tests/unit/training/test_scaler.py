import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.training.scaler import Scaler

TABLES = arrays(
    np.float64, st.tuples(st.integers(2, 20), st.just(3)), elements=st.floats(-1e3, 1e3)
)


@given(table=TABLES)
def test_what_it_was_fitted_on_becomes_centred(table: np.ndarray) -> None:
    scaled = Scaler.fit(table).apply(table)

    assert np.dtype("float32") == scaled.dtype
    assert np.isfinite(scaled).all()
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-3)


def test_features_get_unit_deviation() -> None:
    table = np.array([[0.0, 10.0], [2.0, 30.0]])

    scaled = Scaler.fit(table).apply(table)

    assert [[-1.0, -1.0], [1.0, 1.0]] == scaled.tolist()


def test_a_constant_feature_is_only_centred() -> None:
    assert [[0.0], [0.0]] == Scaler.fit(np.full((2, 1), 5.0)).apply(np.full((2, 1), 5.0)).tolist()


def test_the_identity_changes_nothing() -> None:
    assert [[1.0, -2.0]] == Scaler.identity(2).apply(np.array([[1.0, -2.0]])).tolist()
