"""``gradclip plot``: what is drawn, in which formats, and what is said where nothing can be drawn."""

from dataclasses import replace

import numpy as np
import pytest

from gradclip._cli.figures.labels import spread
from gradclip._cli.figures.norms import draw_norms
from gradclip._cli.figures.parameters import draw_parameters
from gradclip._cli.figures.series import draw_series, running_median
from gradclip._cli.figures.style import new_figure, styled
from gradclip._cli.figures.thresholds import draw_thresholds
from gradclip._cli.marks import recorded, with_threshold
from gradclip._cli.replay import policies_for, replay
from tests.cli.histories import NAMES, run, write

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("options", [(), ("--parameters",), ("--max-norm", "0.8")])
def test_the_format_is_that_of_the_name(gradclip, tmp_path, kind, options):
    figure = tmp_path / f"norms.{kind}"
    code, output, errors = gradclip("plot", write(run(), tmp_path / "log.jsonl"), "-o", figure, *options)
    assert (code, output, errors) == (0, f"{figure}\n", "")
    assert figure.read_bytes().startswith(STARTS[kind])


def test_another_format_is_an_error_of_usage_before_anything_is_read(gradclip, tmp_path):
    code, _, errors = gradclip("plot", tmp_path / "none", "-o", "norms.gif")
    assert code == 2
    assert ".png, .svg or .pdf" in " ".join(errors.split())


def test_what_cannot_be_drawn_is_said(gradclip, tmp_path):
    path = write(run(parameters=False), tmp_path / "log.jsonl")
    code, _, errors = gradclip("plot", path, "--parameters", "-o", tmp_path / "a.png")
    assert code == 1
    assert "no norms of parameters" in errors
    write(replace(run(parameters=False), norm=np.full(600, np.nan)), path)
    code, _, errors = gradclip("plot", path, "-o", tmp_path / "a.png")
    assert code == 1
    assert "no finite norm above zero" in errors
    assert not (tmp_path / "a.png").exists()


def test_a_folder_that_is_not_there_is_one_line(gradclip, tmp_path):
    path = write(run(), tmp_path / "log.jsonl")
    code, _, errors = gradclip("plot", path, "-o", tmp_path / "no" / "a.png")
    assert (code, errors.count("\n")) == (1, 1)
    assert "No such file or directory" in errors


def drawn(figure):
    """Return the lines of the first axes by their labels."""
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_norms_threshold_and_marks_are_where_they_were_recorded():
    history = run()
    figure = draw_norms(history, recorded(history), "log")
    lines = drawn(figure)
    finite = np.isfinite(history.norm)
    np.testing.assert_array_equal(lines["norm before clipping"].get_ydata(), history.norm[finite])
    np.testing.assert_array_equal(lines["max_norm"].get_ydata(), history.max_norm)
    np.testing.assert_array_equal(lines["clipped"].get_xdata(), history.step[history.clipped])
    np.testing.assert_array_equal(lines["skipped"].get_xdata(), history.step[history.skipped & finite])
    np.testing.assert_array_equal(lines["NaN or inf"].get_xdata(), history.step[~finite])
    assert figure.axes[0].get_yscale() == "log"
    loss = next(axes for axes in figure.axes if axes.get_ylabel() == "loss")
    assert loss.get_shared_x_axes().joined(loss, figure.axes[0])


def test_a_threshold_that_was_not_applied_is_drawn_as_such():
    history = replace(run(), max_norm=None, clipped=None, skipped=None, loss=None)
    lines = drawn(draw_norms(history, with_threshold(history, 0.8, "max_norm 0.8"), "log"))
    assert lines["max_norm 0.8"].get_linestyle() == "--"
    finite = np.isfinite(history.norm)
    np.testing.assert_array_equal(lines["would be clipped"].get_xdata(), history.step[finite & (history.norm > 0.8)])
    assert recorded(history).max_norm is None
    assert not recorded(history).clipped.any()


@pytest.mark.parametrize("kind", ["norms", "parameters", "thresholds"])
def test_no_two_texts_overlap_and_none_is_cut_off(kind):
    history = run()
    with styled():
        if kind == "norms":
            figure = draw_norms(history, recorded(history), "log.jsonl")
        elif kind == "parameters":
            figure = draw_parameters(history, "log.jsonl")
        else:
            figure = draw_thresholds(history, replay(history, policies_for(history, 1.0), lambda n: None), "log.jsonl")
        figure.canvas.draw()
        boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure)]
    for i, (one, box) in enumerate(boxes):
        assert figure.bbox.x0 - 1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1, one
        assert figure.bbox.y0 - 1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1, one
        for other, its in boxes[i + 1 :]:
            assert not box.padded(-1).overlaps(its.padded(-1)), (one, other)


def texts(figure):
    """Return the texts of a figure that are visible."""
    from matplotlib.text import Text

    found = figure.findobj(Text)
    shown = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden = [t for t in axis.get_major_ticks() + axis.get_minor_ticks() if not low <= t.get_loc() <= high]
            shown += [label for tick in hidden for label in (tick.label1, tick.label2)]
    return [t for t in found if t.get_visible() and t.get_text() and t not in shown]


def test_the_heat_map_has_a_row_a_parameter_and_their_median_shares():
    history = run()
    figure = draw_parameters(history, "log")
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(NAMES)
    widths = [bar.get_width() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(sum(widths), 1, rtol=1e-9)
    many = replace(history, parameters={f"layer.{i:03}": history.norm * (i + 1) for i in range(100)})
    names = [t.get_text() for t in draw_parameters(many, "log").axes[0].get_yticklabels()]
    assert names == [f"layer.{i:03}" for i in range(60, 100)]


def test_a_long_series_is_drawn_as_bands_that_hold_every_value():
    values = np.random.default_rng(0).lognormal(size=50_000)
    axes = new_figure(4, 3).add_subplot()
    draw_series(axes, np.arange(values.size), values, "b", "norm")
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (values.min(), values.max())


def test_the_running_median_is_the_median_of_each_window():
    values = np.random.default_rng(0).normal(size=50)
    middle = running_median(values, 6)
    assert middle.shape == values.shape
    for i in range(3, 47):
        assert middle[i] == np.median(values[i - 3 : i + 4])


@pytest.mark.parametrize("places", [[0.0, 0.5, 1.0], [0.5, 0.5, 0.5], [0.1, 0.12, 0.9, 0.91], [0.5]])
def test_labels_are_apart_in_order_and_near(places):
    moved = spread(np.array(places), 0.1)
    assert (np.diff(moved) >= 0.1 - 1e-12).all()
    assert abs(moved.mean() - np.mean(places)) < 1e-9
    assert np.abs(moved - places).max() <= 0.1 * (len(places) - 1) / 2 + 1e-12
