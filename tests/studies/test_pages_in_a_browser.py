"""Every report as a reader meets it: in Chromium, on a desk and on a telephone, in light and in the dark.

Skipped where there is no browser or the extra `pages` is not installed; `tests/reports/test_page.py` needs neither.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up
import pytest
from hybrid_rows import hybrid_result

from small_study import SMALL_STUDY, run_lottery
from tombola.reports.intervals import estimate
from tombola.reports.nature import COLOURS, DARK_COLOURS
from tombola.reports.page import POLICY
from tombola.runs.folder import LAYOUT
from tombola.runs.sealed import write_sealed
from tombola.studies.hybrid.report import report_page
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.single.comparison import Comparison, Method, Setting
from tombola.studies.single.comparison_report import comparison_page
from tombola.studies.single.config import CompareConfig
from tombola.studies.stress.report import stress_page

pytestmark = pytest.mark.usefixtures("real_figures")

BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if BROWSER is None:
    pytest.skip("no Chromium here; apt-get install chromium, or name one in $CHROMIUM", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="the extra `pages` is not installed")
axe_package = pytest.importorskip("axe_playwright_python", reason="the extra `pages` is not installed")

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
DESK, TELEPHONE = 1280, 390
OUTSIDE = "http://192.0.2.1/planted.png"  # RFC 5737: an address that is nobody's
EITHER = [(DESK, "light"), (TELEPHONE, "dark")]
EVERY = [*EITHER, (DESK, "dark"), (TELEPHONE, "light")]
VISITS = [(name, *seen) for name in ("lottery", "hybrid", "stress") for seen in EVERY]
VISITS += [(name, *seen) for name in ("curve", "time", "train", "compare") for seen in EITHER]
"""Every width and scheme of the pages with all there is, both of each of the others, which have the same parts."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, parent: Path) -> dict[str, Path]:
    """A page of every kind, by name."""
    home = tmp_path_factory.mktemp("pages")
    averaging = {**SMALL_STUDY, "training": {**SMALL_STUDY["training"], "ema": 0.5}, "rewind": ["init", "lr"]}
    lottery = run_lottery(LotteryConfig.model_validate(averaging), home).folder
    hybrid = hybrid_result(home / "hybrid", networks=("base", "dense", "ticket"), lost={"block1_conv2": 4.0})
    found = {
        "lottery": lottery.report,
        "curve": lottery.results / "sparsity_curve.html",
        "time": lottery.results / "sparsity_vs_time.html",
        "train": parent / "report.html",
        "compare": home / "compare" / "report.html",
        "hybrid": home / "hybrid" / "report.html",
        "stress": home / "stress" / "report.html",
    }
    found["hybrid"].write_text(report_page(hybrid))
    stressed = made_up.study(home / "stress", journals=("entropy",), cost={"random": 1.0}, lost=0.1)
    found["stress"].write_text(stress_page(stressed, "diverse"))
    found["compare"].parent.mkdir()
    found["compare"].write_text(comparison_page(comparison(found["compare"].parent)))
    return found


def comparison(folder: Path) -> Comparison:
    """Two methods on three replicates, one of them refused in one setting."""
    write_sealed(folder / "manifest.json", {"layout": LAYOUT, "must_match": {"study": "compare"}})
    asked = {"name": "two", "criteria": ["magnitude", "random"], "structures": ["weight"], "sparsities": [0.5, 0.9]}
    recipe = {"length": "4it", "evaluate_every": "2it", "learning_rate": 1e-2}
    config = CompareConfig.model_validate(asked | {"data": {"name": "digits"}, "training": recipe, "replicates": 3})
    lost = [estimate([1.0, 2.0, 2.5 + index]) for index in range(4)]
    accuracy = estimate([90.0, 91.0, 92.0])
    methods = [
        Method(name, None, found, found, found, accuracy, kept, kept, kept, {0: 1.0, 1: 2.0, 2: 3.0})
        for name, found, kept in zip(asked["criteria"] * 2, lost, (0.5, 0.5, 0.1, 0.1), strict=True)
    ]
    settings = [
        Setting("weight", "global", 0.5, methods[:2]),
        Setting("weight", "global", 0.9, [*methods[2:], Method("fpgm", "no")]),
    ]
    return Comparison(folder, config, [], estimate([93.0, 94.0, 95.0]), settings)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=BROWSER, args=[*QUIET])
        yield launched
        launched.close()


class Visit:
    """A page that was opened, every request but for the file itself (none goes out), and every complaint."""

    def __init__(self, browser: Any, path: Path, width: int = DESK, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context.route("**/*", self._route)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.goto(path.as_uri())
        self.page.wait_for_timeout(100)

    def _route(self, route: Any) -> None:
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def violations(self) -> list[str]:
        """What axe-core finds, all folds open; drawings have a text alternative, their insides are not read out."""
        self.page.evaluate((Path(axe_package.__file__).parent / "axe.min.js").read_text())
        self.page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        self.page.wait_for_timeout(100)  # boxes that scroll are noticed
        found = self.page.evaluate("axe.run({exclude: [['.plot > *']]}, {resultTypes: ['violations']})")
        return [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found["violations"]]

    def scrolls_sideways(self) -> bool:
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    open_ones: list[Visit] = []

    def go(*arguments: Any) -> Visit:
        open_ones.append(Visit(browser, *arguments))
        return open_ones[-1]

    yield go
    for one in open_ones:
        one.context.close()


@pytest.mark.parametrize(("report", "width", "scheme"), VISITS)
def test_nobody_is_shut_out_and_nothing_goes_out(
    pages: dict[str, Path], visit: Any, report: str, width: int, scheme: str
) -> None:
    seen = visit(pages[report], width, scheme)
    assert not seen.scrolls_sideways()
    assert seen.violations() == []
    assert not seen.scrolls_sideways(), "with every fold open"
    assert seen.requests == []
    assert seen.complaints == []


TEXTS = """[...document.querySelectorAll('.plot text, .still text')]
  .filter((text) => text.textContent.trim() && text.getClientRects().length)
  .map((text) => {
    const svg = text.ownerSVGElement, box = svg.viewBox.baseVal;
    const scale = box && box.width ? svg.getBoundingClientRect().width / box.width : 1;
    return parseFloat(getComputedStyle(text).fontSize) * scale;
  })"""


@pytest.mark.parametrize("width", [DESK, TELEPHONE])
@pytest.mark.parametrize("report", ["lottery", "curve", "hybrid"])
def test_figures_are_as_wide_as_the_column_and_can_be_read(
    pages: dict[str, Path], visit: Any, report: str, width: int
) -> None:
    page = visit(pages[report], width).page
    sizes = page.evaluate(TEXTS)
    assert len(sizes) > 10
    assert min(sizes) >= 12
    drawn = page.evaluate(
        "[...document.querySelectorAll('figure > .plot .main-svg, figure > .still:not([hidden]) > svg')]"
        ".map((one) => one.getBoundingClientRect().width).filter(Boolean)"
    )
    column = page.evaluate("document.querySelector('main').getBoundingClientRect().width")
    assert drawn
    assert all(abs(one - column) <= 1 for one in drawn)


def test_nothing_of_a_figure_is_cut(pages: dict[str, Path], visit: Any) -> None:
    """Titles of several lines, and marks at the ends of axes."""
    page = visit(pages["stress"]).page
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    page.wait_for_timeout(200)
    outside = page.evaluate(OUTSIDE_OF_ITS_DRAWING)
    assert page.locator(".plot .gtitle").count() > 8
    assert outside == []


OUTSIDE_OF_ITS_DRAWING = """[...document.querySelectorAll('.plot text, .plot .points path')]
  .filter((one) => one.getClientRects().length && one.closest('.main-svg'))
  .filter((one) => {
    const box = one.getBoundingClientRect(), whole = one.closest('.plot').getBoundingClientRect();
    return box.top < whole.top - 1 || box.bottom > whole.bottom + 1
      || box.left < whole.left - 1 || box.right > whole.right + 1;
  })
  .map((one) => `${one.textContent || one.outerHTML.slice(0, 80)}`)"""


def test_figures_follow_light_and_dark(pages: dict[str, Path], visit: Any) -> None:
    page = visit(pages["hybrid"]).page
    filled = "getComputedStyle(document.querySelector('.plot .points path')).fill"

    def rgb(colour: str) -> str:
        return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"

    assert page.evaluate(filled) == rgb(COLOURS[0])
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(100)
    assert page.evaluate(filled) == rgb(DARK_COLOURS[0])


def test_a_pointer_shows_mean_interval_and_n(pages: dict[str, Path], visit: Any) -> None:
    page = visit(pages["hybrid"]).page
    point = page.locator(".plot .points path").nth(1)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    shown = page.locator(".hoverlayer").first
    shown.locator("text").first.wait_for(timeout=5000)
    assert re.search(r"Test accuracy \(%\): [\d.]+ \(95 % CI [\d.]+ to [\d.]+, n = 5\)", shown.text_content())


def test_a_keyboard_skips_to_the_content_and_meets_no_toolbars(pages: dict[str, Path], visit: Any) -> None:
    page = visit(pages["lottery"]).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    focusable = "a, button, input, select, [tabindex]:not([tabindex='-1'])"
    assert page.locator(".plot").locator(focusable).count() == 0
    assert page.locator(".modebar-btn").count() == 0
    stops = page.evaluate(
        f"[...document.querySelectorAll({focusable!r})].filter((one) => one.checkVisibility()).length"
    )
    assert stops < 40


def test_a_wide_table_says_that_it_scrolls(pages: dict[str, Path], visit: Any) -> None:
    page = visit(pages["hybrid"], TELEPHONE).page
    box = page.locator(".overflows").first
    assert box.get_attribute("tabindex") == "0"
    assert "scroll sideways" in page.evaluate(
        "getComputedStyle(document.querySelector('.overflows caption span'), '::after').content"
    )


def test_a_printed_page_is_light_and_unfolded(pages: dict[str, Path], visit: Any) -> None:
    page = visit(pages["hybrid"], DESK, "dark").page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("getComputedStyle(document.querySelector('.plot .points path')).fill") == "rgb(0, 114, 178)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf().startswith(b"%PDF")


def test_a_figure_is_saved_in_the_sizes_of_print(pages: dict[str, Path], visit: Any) -> None:
    page = visit(pages["hybrid"]).page
    page.locator("figure summary").first.click()
    with page.expect_download(timeout=10_000) as saved:
        page.locator("button.save").first.click()
    content = Path(saved.value.path()).read_text()
    assert saved.value.suggested_filename == "figure-1-1.svg"
    assert re.search(r'<svg[^>]* width="692" height="340"', content)
    assert "forest on dense features" in content


class TestPositiveControls:
    """What the checks above look for is found where it is."""

    @pytest.fixture
    def planted(self, pages: dict[str, Path], tmp_path: Path) -> Any:
        def plant(old: str, new: str) -> Path:
            text = pages["curve"].read_text()
            assert old in text
            path = tmp_path / "planted.html"
            path.write_text(text.replace(old, new, 1))
            return path

        return plant

    def test_a_request_is_caught(self, planted: Any, visit: Any) -> None:
        path = planted("<main", f"<img alt='' src='{OUTSIDE}'><main")
        path.write_text(path.read_text().replace(POLICY, "default-src * 'unsafe-inline'"))
        assert visit(path).requests == [OUTSIDE]

    def test_the_policy_stops_it_before_it_is_made(self, planted: Any, visit: Any) -> None:
        seen = visit(planted("<main", f"<img alt='' src='{OUTSIDE}'><main"))
        assert seen.requests == []
        assert any("Content Security Policy" in said for said in seen.complaints)

    def test_a_figure_without_an_alternative_is_caught(self, planted: Any, visit: Any) -> None:
        path = planted("<figcaption", "<div role='img'>x</div><figcaption")
        assert any(found.startswith("role-img-alt") for found in visit(path).violations())

    def test_pale_text_is_caught(self, planted: Any, visit: Any) -> None:
        path = planted("<main", "<p style='color:#bbb;background:#fff'>pale</p><main")
        assert any(found.startswith("color-contrast") for found in visit(path).violations())

    def test_what_is_too_wide_is_caught(self, planted: Any, visit: Any) -> None:
        assert visit(
            planted("<figcaption", "<div style='width:600px'>x</div><figcaption"), TELEPHONE
        ).scrolls_sideways()
