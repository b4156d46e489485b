"""The picture: well-formed, complete, and nowhere outside its frame."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from p2pnode.bench.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axes, Series, svg

AXES = Axes(title="a < b & c", x="x", y="y")
NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_every_point_is_drawn_inside_the_frame_and_every_line_is_named() -> None:
    measured = Series(name="ours", points=[(10.0, 90.0), (40.0, 25.0), (160.0, 6.1)], colour=2)
    bound = Series(name="the bound", points=[(10.0, 99.0), (160.0, 6.5)], colour=0, is_bound=True)
    root = ElementTree.fromstring(svg(AXES, [measured, bound]))
    circles = root.findall(f"{NAMESPACE}circle")
    assert len(circles) == len(measured.points)
    for circle in circles:
        assert LEFT <= float(circle.attrib["cx"]) <= WIDTH - RIGHT
        assert TOP <= float(circle.attrib["cy"]) <= HEIGHT - BOTTOM
    texts = {text.text for text in root.findall(f"{NAMESPACE}text")}
    assert {"a < b & c", "ours", "the bound", "10", "200", "5", "100"} <= texts


def test_larger_values_are_further_right_and_further_up() -> None:
    line = Series(name="a", points=[(1.0, 1.0), (2.0, 3.0), (4.0, 9.0)], colour=1)
    circles = ElementTree.fromstring(svg(AXES, [line])).findall(f"{NAMESPACE}circle")
    xs = [float(circle.attrib["cx"]) for circle in circles]
    ys = [float(circle.attrib["cy"]) for circle in circles]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)


@pytest.mark.parametrize("points", [[], [(1.0, 0.0)], [(-1.0, 2.0)]])
def test_what_cannot_be_drawn_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="points above 0"):
        svg(AXES, [Series(name="a", points=points, colour=0)])
