from pathlib import Path

import pytest
from matplotlib.image import imread

from backend.cli.plot import best_epoch, save_plot
from tests.unit.cli.samples import COMPLETED, FAILED, epoch, operation


@pytest.mark.parametrize("epochs", [1, 3, 200])
def test_the_picture_is_a_png_of_a_readable_size(tmp_path: Path, epochs: int) -> None:
    path = tmp_path / "p.png"
    save_plot(path, operation(COMPLETED), [epoch(n + 1) for n in range(epochs)])
    height, width = imread(path).shape[:2]
    assert width >= 1000
    assert height >= 500


def test_a_training_that_failed_has_a_picture_too(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    save_plot(path, operation(FAILED), [epoch(1, float("nan")), epoch(2)])
    assert path.stat().st_size > 10_000


def test_the_best_epoch_has_the_lowest_validation_loss() -> None:
    assert best_epoch([epoch(1, 0.9), epoch(2, 0.7), epoch(3, float("nan")), epoch(4, 0.8)]) == 2


def test_without_a_validation_loss_no_epoch_is_best() -> None:
    assert best_epoch([epoch(1, float("nan"))]) == 0
