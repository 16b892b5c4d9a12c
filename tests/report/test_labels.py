"""Names in figures: heights that are a line apart, widths, and no name left out of a line chart."""

import re

import numpy as np

from recsys.report import plots
from recsys.report.labels import LINE_HEIGHT, spread, text_width


def test_heights_with_room_stay():
    assert spread([0, 50, 100], 0, 100) == [0, 50, 100]


def test_heights_that_are_equal_are_spread_around_them():
    assert spread([50, 50, 50], 0, 100) == [50 - LINE_HEIGHT, 50, 50 + LINE_HEIGHT]


def test_heights_stay_between_the_bounds():
    low = spread([1, 2, 90], 0, 100)
    assert low == [0, LINE_HEIGHT, 90]
    assert spread([98, 99], 0, 100) == [100 - LINE_HEIGHT, 100]


def test_a_wider_text_is_measured_wider():
    assert text_width("mmmm") > text_width("iiii")
    assert text_width("千と千尋") >= 4 * 8.5


def test_every_line_of_a_chart_has_its_name():
    names = [f"model {number}" for number in range(20)]
    svg = plots.lines({name: np.array([0.1, 0.1]) for name in names}, "x", "y", names[3])
    heights = [float(y) for y in re.findall(r'<text[^>]*y="([\d.]+)"[^>]*>model \d+</text>', svg)]
    assert len(heights) == 20
    assert min(np.diff(sorted(heights))) >= LINE_HEIGHT - 0.01
