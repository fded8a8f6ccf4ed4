from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from backend.cli.plot import best_epoch, save_plot
from ktrdr.training.v1 import training_pb2
from tests.unit.cli.samples import COMPLETED, FAILED, epoch, operation


@pytest.mark.parametrize("epochs", [1, 3, 200])
def test_the_picture_is_a_png_of_a_readable_size(tmp_path: Path, epochs: int) -> None:
    path = tmp_path / "p.png"
    save_plot(path, operation(COMPLETED), [epoch(n + 1) for n in range(epochs)])
    height, width = imread(path).shape[:2]
    assert width >= 1000
    assert height >= 500


def test_a_title_that_is_wider_than_the_picture_is_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    long = training_pb2.TrainingResult(
        model_name=f"{'long_' * 12}/1d_v1",
        symbols=[f"SYM{n}" for n in range(100)],
        timeframes=["1d"],
    )
    ended = operation(COMPLETED)
    ended.result.Pack(long)
    save_plot(path, ended, [epoch(1), epoch(2)])
    picture = imread(path)[:, :, :3]
    assert (1.0, 1.0) == (picture[:, :3].min(), picture[:, -3:].min())
    height, width = picture.shape[:2]
    assert width >= 1000
    assert height >= 500


def test_dollars_in_symbols_are_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    ended = operation(COMPLETED)
    ended.result.Pack(training_pb2.TrainingResult(model_name="m", symbols=["$A^$"]))
    save_plot(path, ended, [epoch(1)])
    assert path.is_file()


def test_an_accuracy_is_marked_where_its_label_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    few = [epoch(1), epoch(2)]
    for metric, accuracy in zip(few, (0.46, 0.64), strict=True):
        metric.values["train_accuracy"] = metric.values["val_accuracy"] = accuracy
    save_plot(tmp_path / "p.png", operation(FAILED), few)
    drawn[0].canvas.draw()
    axis = drawn[0].axes[1].yaxis
    places = list(axis.get_majorticklocs())
    told = axis.get_major_formatter().format_ticks(places)
    assert pytest.approx(places) == [float(text.rstrip("%")) / 100 for text in told]


def test_a_training_that_failed_has_a_picture_too(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    save_plot(path, operation(FAILED), [epoch(1, float("nan")), epoch(2)])
    assert path.stat().st_size > 10_000


def test_the_best_epoch_has_the_lowest_validation_loss() -> None:
    assert best_epoch([epoch(1, 0.9), epoch(2, 0.7), epoch(3, float("nan")), epoch(4, 0.8)]) == 2


def test_without_a_validation_loss_no_epoch_is_best() -> None:
    assert best_epoch([epoch(1, float("nan"))]) == 0
