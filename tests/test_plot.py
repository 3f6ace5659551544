"""Line charts as SVG."""

from __future__ import annotations

from xml.etree import ElementTree

from latentcap.heads.plot import HEIGHT, WIDTH, Chart, line_charts

SVG = "{http://www.w3.org/2000/svg}"


def test_charts_stand_side_by_side_and_values_inside_them() -> None:
    charts = [
        Chart("A < B", "heads", [(1, 0.9), (2, 1.0), (4, 1.1)], level=1.0, from_zero=False),
        Chart("ms", "heads", [(1, 3.0), (2, 3.0)]),
        Chart("one point", "heads", [(8, 0.0)], from_zero=False),
    ]
    root = ElementTree.fromstring(line_charts(charts))
    assert root.get("width") == str(3 * WIDTH)
    groups = root.findall(f"{SVG}g")
    assert [len(group.findall(f"{SVG}circle")) for group in groups] == [3, 2, 1]
    assert groups[0].findall(f"{SVG}text")[0].text == "A < B"
    assert groups[0].find(f"{SVG}circle/{SVG}title").text == "1: 0.9"  # type: ignore[union-attr]
    for circle in root.iter(f"{SVG}circle"):
        assert 0 < float(circle.get("cx", "")) < WIDTH
        assert 0 < float(circle.get("cy", "")) < HEIGHT
    rising = [float(circle.get("cy", "")) for circle in groups[0].findall(f"{SVG}circle")]
    assert rising == sorted(rising, reverse=True)  # SVG counts downwards
    assert len([path for path in groups[0].findall(f"{SVG}path") if path.get("stroke-dasharray")]) == 1
