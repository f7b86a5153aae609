"""The page in a real browser."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqrec.serving.process import running_service

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")


@pytest.fixture(scope="module")
def address(exported: Path, served_run: Path) -> Iterator[str]:
    with running_service(exported, served_run, "--api_key", "open") as (_, found):
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1300, "light"), (390, "dark")])
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.get_by_label("This service asks for a key.").fill("open")
    page.keyboard.press("Enter")
    page.wait_for_selector(".model li")
    settle(page)
    yield page
    assert not faults
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def settle(page: Any) -> None:
    """Wait until every model has answered the last request."""
    page.wait_for_function("document.body.dataset.shown === String(asked)")


def titles(page: Any) -> list[list[str]]:
    return [model.locator(".title").all_inner_texts() for model in page.locator(".model").all()]


def test_a_person_names_items_and_takes_one_away(page: Any) -> None:
    assert page.locator(".model h3").all_inner_texts() == ["our-model", "SASRec-none-seed42"]
    assert "popular" in page.locator(".model small").first.inner_text()
    words, history = page.get_by_role("combobox"), page.locator("#history li")
    words.fill("red green 3")
    page.wait_for_selector("#options li")
    options = page.locator("#options li").all_inner_texts()
    assert options and all("red green" in option and "3" in option for option in options)
    for key in ("ArrowUp", "ArrowDown", "ArrowDown"):
        words.press(key)
    place = 1 % len(options)
    assert words.get_attribute("aria-activedescendant") == f"option{place}"
    words.press("Enter")
    settle(page)
    assert page.locator(".model small").first.inner_text().endswith("ms")
    assert history.all_inner_texts()[0].startswith(options[place]) and not page.locator("#start").is_visible()
    words.fill("blue")
    page.wait_for_selector("#options li")
    words.press("Escape")
    assert page.locator("#options li").count() == 0
    words.fill("small")
    page.locator("#options li").first.click()
    page.wait_for_function("document.querySelectorAll('#history li').length === 2")
    settle(page)
    two = titles(page)
    assert two[0] == two[1] and len(two[0]) == 10  # an export and its run
    assert page.locator(".why").count() > 0
    page.locator("#history button").first.press("Enter")
    page.wait_for_selector("#change:not([hidden])")
    assert re.fullmatch(r"Without “.*”: \d+ of 10 new with our-model, .*\.", page.locator("#change").inner_text())
    settle(page)
    assert history.count() == 1 and titles(page) != two
    assert page.evaluate("document.activeElement.ariaLabel").startswith("Take away")
    page.get_by_role("button", name="Start again").click()
    page.wait_for_selector("#start:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "words"


def test_light_and_dark(page: Any) -> None:
    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    before = paper()
    page.locator("#light").click()
    assert paper() != before
    page.reload()
    page.wait_for_selector(".model li")
    assert paper() != before


def test_what_a_screen_reader_is_told(page: Any) -> None:
    assert page.evaluate("document.documentElement.lang") == "en"
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input')].filter(node => node.offsetParent
          && !node.textContent.trim() && !node.ariaLabel && !node.labels?.length).length"""
    )
    assert unnamed == 0
    contrasts = page.evaluate(
        """() => {
          const linear = value => (value /= 255) <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
          const light = colour => { const [r, g, b] = colour.match(/\\d+/g).map(linear);
            return .2126 * r + .7152 * g + .0722 * b; };
          const paper = light(getComputedStyle(document.body).backgroundColor);
          return [...document.querySelectorAll('h1, p, small, .rank, .title')].filter(node => node.offsetParent)
            .map(node => light(getComputedStyle(node).color))
            .map(ink => (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05));
        }"""
    )
    assert len(contrasts) > 20 and min(contrasts) >= 4.5
