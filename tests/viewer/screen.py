"""A page that holds the viewer alone → the steps that browser tests share: open a volume, click, read a pixel."""

from __future__ import annotations

from typing import Any

from tests.viewer.harness import Harness, ct

SHOWN_MS = 30_000
BLOCK = (45, 9, 17)  # (i, j, k) inside the dense block
BODY = (20, 16, 8)
PLANES = ("axial", "coronal", "sagittal")

OPEN = """async (study) => {
  const { emit } = await import('/static/js/bus.js');
  const found = await (await fetch(`/api/studies/${study}`)).json();
  emit('study:open', found);
  emit('series:open', found.series[0]);
}"""
FRAME = "await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));"
PIXEL = f"""async ([plane, ijk]) => {{
  {FRAME}
  const {{ canvas }} = window.__viewer.viewer.panes.find((pane) => pane.plane === plane);
  const box = canvas.getBoundingClientRect();
  const [x, y] = window.__viewer.pointOf(plane, ijk);
  const scale = canvas.width / box.width;
  const at = [(x - box.left) * scale, (y - box.top) * scale].map(Math.floor);
  return [...canvas.getContext('2d').getImageData(...at, 1, 1).data.slice(0, 3)];
}}"""
CANVAS = f"""async (plane) => {{
  {FRAME}
  return window.__viewer.viewer.panes.find((pane) => pane.plane === plane).canvas.toDataURL().split(',')[1];
}}"""


class Screen:
    """The page with the viewer, and the steps that tests share."""

    def __init__(self, page: Any, harness: Harness) -> None:
        self.page, self.harness, self.studies = page, harness, 0

    def open(self, *volumes: Any) -> Any:
        """Store the volumes as a study of their own, open it, wait until all voxels are there; answers its row."""
        self.studies += 1
        row = self.harness.add(*volumes, uid=f"2.25.{self.studies}")
        self.page.evaluate(OPEN, row.id)
        self.page.wait_for_function(
            "(id) => window.__viewer.state().series === id && window.__viewer.state().ready", arg=row.series[0].id
        )
        return row

    def state(self, name: str) -> Any:
        return self.page.evaluate("(name) => window.__viewer.state()[name]", name)

    def layout(self, name: str) -> None:
        """Another layout, drawn."""
        self.page.evaluate(f"async (name) => {{ window.__viewer.viewer.setLayout(name); {FRAME} }}", name)

    def until(self, script: str) -> None:
        """Wait for something of `viewer`."""
        self.page.wait_for_function(f"(() => {{ const {{ viewer }} = window.__viewer; return {script}; }})()")

    def point(self, plane: str, ijk: tuple[int, int, int]) -> tuple[float, float]:
        return tuple(self.page.evaluate("([plane, ijk]) => window.__viewer.pointOf(plane, ijk)", [plane, list(ijk)]))

    def pixel(self, plane: str, ijk: tuple[int, int, int]) -> list[int]:
        """What is drawn at a voxel's centre, once drawn."""
        return self.page.evaluate(PIXEL, [plane, list(ijk)])

    def text(self, plane: str, part: str) -> str:
        return self.page.locator(f".rr-pane[data-plane={plane}] .rr-{part}").text_content()

    def hover(self, plane: str, ijk: tuple[int, int, int] = BODY) -> None:
        self.page.mouse.move(*self.point(plane, ijk))

    def click(self, plane: str, ijk: tuple[int, int, int]) -> None:
        self.page.mouse.click(*self.point(plane, ijk))

    def goto(self, ijk: tuple[int, int, int]) -> None:
        lps = ct().to_world(ijk).tolist()
        self.page.evaluate("(lps) => window.__viewer.goto(lps)", lps)

    def drag(self, button: str, dx: int, dy: int) -> None:
        x, y = self.point("axial", BODY)
        self.page.mouse.move(x, y)
        self.page.mouse.down(button=button)
        self.page.mouse.move(x + dx, y + dy, steps=3)
        self.page.mouse.up(button=button)
