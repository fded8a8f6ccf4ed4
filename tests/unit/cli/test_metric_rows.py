import io
import math

from backend.cli.metric_rows import MetricRows, value_names, write_csv
from ktrdr.operations.v1 import operation_pb2 as op
from tests.unit.cli.samples import epoch


def test_an_epoch_fits_a_line_of_80_columns() -> None:
    rows = MetricRows([epoch(1)], total=100)
    assert len(rows.heading()) <= 80
    assert rows.row(epoch(1)) == (
        "  1/100      1.1000     40.0 %    1.2000    30.0 %       0.001      0.42    *"
    )


def test_only_a_new_lowest_validation_loss_is_marked() -> None:
    rows = MetricRows([epoch(1)])
    marks = [rows.row(epoch(n, loss)).endswith("*") for n, loss in ((1, 1.0), (2, 1.5), (3, 0.9))]
    assert marks == [True, False, True]


def test_nan_is_printed_and_never_the_best() -> None:
    row = MetricRows([epoch(1)]).row(epoch(1, math.nan))
    assert "nan" in row
    assert not row.endswith("*")


def test_a_figure_a_metric_lacks_is_a_dash() -> None:
    lacking = op.Metric(kind="epoch", step=2, values={"train_loss": 0.5})
    assert MetricRows([epoch(1)]).row(lacking).split() == ["2", "0.5000", *"-----"]


def test_other_kinds_of_metrics_have_columns_too() -> None:
    metric = op.Metric(kind="symbol", step=1, values={"rows": 250}, labels={"symbol": "IBM"})
    rows = MetricRows([metric])
    assert rows.heading().split() == ["symbol", "rows", "labels"]
    assert rows.row(metric).split() == ["1", "250", "symbol=IBM"]


def test_familiar_figures_come_first() -> None:
    metric = op.Metric(values={"zeta": 1, "alpha": 2, "val_loss": 3, "train_loss": 4})
    assert value_names([metric]) == ["train_loss", "val_loss", "alpha", "zeta"]


def test_where_there_is_no_room_the_most_telling_figures_stay() -> None:
    rows = MetricRows([epoch(1)], width=40)
    assert ["epoch", "train", "loss", "val", "loss", "best"] == rows.heading().split()
    assert ["1", "1.1000", "1.2000", "*"] == rows.row(epoch(1)).split()
    assert 4 == rows.left_out
    assert len(rows.heading()) <= 40


def test_labels_keep_their_room_beside_at_least_one_figure() -> None:
    metric = op.Metric(
        kind="symbol", step=1, values={"rows_loaded": 250, "gaps": 1}, labels={"symbol": "IBM"}
    )
    assert ["1", "250", "symbol=IBM"] == MetricRows([metric], width=30).row(metric).split()
    assert ["1", "250", "symbol=IBM"] == MetricRows([metric], width=5).row(metric).split()


def test_csv_has_a_row_per_metric_and_a_column_per_figure_and_label() -> None:
    file = io.StringIO()
    first = op.Metric(kind="epoch", step=1, values={"a": math.nan})
    second = op.Metric(kind="epoch", step=2, values={"b": 0.5}, labels={"note": "x,y"})
    write_csv([first, second], file)
    epoch_zero = "1970-01-01T00:00:00Z"
    assert file.getvalue().splitlines() == [
        "step,kind,time,a,b,note",
        f"1,epoch,{epoch_zero},nan,,",
        f'2,epoch,{epoch_zero},,0.5,"x,y"',
    ]
