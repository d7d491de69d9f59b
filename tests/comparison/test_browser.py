"""The report in headless Chromium: ``uv sync --group browser``, and the system's ``chromium``."""

import shutil

import pytest

from fer_exp.comparison.analysis import compare
from fer_exp.comparison.load import find_records
from fer_exp.comparison.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="the dependency group browser is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the group browser is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

# Horizontal overflow of the page, and the smallest text as it is displayed.
MEASURE = """() => {
  const sizes = [...document.querySelectorAll("svg text, td, th, p, li, label")].flatMap((text) => {
    if (!text.getBoundingClientRect().width) return [];
    const svg = text.closest("svg");
    const zoom = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    return [zoom * parseFloat(getComputedStyle(text).fontSize)];
  });
  const root = document.documentElement;
  return [root.scrollWidth - root.clientWidth, Math.min(...sizes)];
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def report(make_sweep):
    def make(groups, epochs=20):
        folder = make_sweep(groups, epochs=epochs)
        write_report(compare(find_records([folder])), folder)
        return f"file://{folder / 'report.html'}"

    return make


@pytest.fixture
def open_page(browser):
    contexts = []

    def open_(url, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.problems.append(request.url) if request.url != url else None)
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.mark.parametrize("groups", [2, 9, 24])
def test_every_width_is_legible_and_needs_no_horizontal_scroll(report, open_page, groups):
    url = report(groups)
    for width, scheme in ((1400, "light"), (768, "dark"), (375, "light")):
        page = open_page(url, viewport={"width": width, "height": 900}, color_scheme=scheme)
        overflow, smallest = page.evaluate(MEASURE)
        assert overflow <= 0, width
        assert smallest >= 11, width
        assert page.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_there_are_no_axe_violations(report, open_page, scheme):
    page = open_page(report(9), color_scheme=scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_answer_is_on_the_first_screen(report, open_page):
    page = open_page(report(9), viewport={"width": 1400, "height": 900})
    for selector in ("h1", ".verdict", ".caveats", ".first figure svg", ".ranking table"):
        box = page.locator(selector).bounding_box()
        assert box["y"] + box["height"] <= 900, selector


def test_everything_is_there_without_javascript_and_in_print(report, open_page):
    url = report(3)
    page = open_page(url, java_script_enabled=False)
    page.locator("label", has_text="#1 adam").locator("input").uncheck()
    assert not page.locator(".curves svg g.g0").first.is_visible()
    assert page.locator(".curves svg g.g1").first.is_visible()
    page.locator("#axis-minutes").check()
    assert page.locator(".axis.minutes").first.is_visible()
    printed = open_page(url)
    printed.emulate_media(media="print")
    for row in printed.locator("details table").all():
        assert row.is_visible()


def test_scripts_show_values_sort_rows_and_save_a_csv(report, open_page, tmp_path):
    page = open_page(report(3), viewport={"width": 1400, "height": 900})
    panel = page.locator(".panels svg").first
    panel.scroll_into_view_if_needed()
    box = panel.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    epoch, *lines = page.locator(".tip").inner_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["adam", "sgd", "rmsprop"]
    row = int(epoch.removeprefix("epoch ")) - 1
    runs = compare(find_records([tmp_path / "sweep"])).groups[0].counted
    expected = 100 * sum(run.history["val_acc"][row] for run in runs) / len(runs)
    assert float(lines[0].split()[1]) == pytest.approx(expected, abs=0.1)
    page.locator("summary", has_text="Runs").click()
    page.locator("table.sortable button", has_text="final").click()
    assert page.locator("table.sortable tbody tr").first.inner_text().startswith("rmsprop")
    with page.expect_download() as download:
        page.locator("a[download]").click()
    assert download.value.path().read_text().startswith("group,")
    assert page.problems == [] or all(url.startswith("data:") for url in page.problems)
