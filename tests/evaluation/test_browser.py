"""The report in headless Chromium: ``uv sync --group browser``, and the system's ``chromium``."""

import shutil

import pytest

from fer_exp.evaluation.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="the dependency group browser is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the group browser is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

# Horizontal overflow of the page, and the smallest text.
MEASURE = """() => {
  const texts = [...document.querySelectorAll("td, th, p, li, dd, figcaption")];
  const sizes = texts.map((text) => parseFloat(getComputedStyle(text).fontSize));
  const root = document.documentElement;
  return [root.scrollWidth - root.clientWidth, Math.min(...sizes)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 768, 375])
def test_the_page_is_legible_and_accessible_at_every_width(evaluation, model, tmp_path, width, scheme):
    write_report(evaluation, model, tmp_path, "light")
    url = f"file://{tmp_path / 'evaluation.html'}"
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        requests = []
        page.on("request", lambda request: requests.append(request.url.partition(",")[0]))
        page.goto(url)
        overflow, smallest = page.evaluate(MEASURE)
        found = axe.Axe().run(page)
        chromium.close()
    assert overflow <= 0
    assert smallest >= 11
    assert {address for address in requests if not address.startswith("data:")} == {url}
    assert found.violations_count == 0, found.generate_report()
