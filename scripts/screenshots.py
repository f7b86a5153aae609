"""Pictures of the service's page and of the comparison report, by a real browser.

python scripts/screenshots.py exports/demo/sasrec-none runs/Baselines/demo/text-knn --report comparison.html
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.serving.process import running_service


@dataclass(frozen=True, slots=True)
class Config:
    """Take pictures of the page, and of the comparison report."""

    models: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of exports and runs, as of scripts/serve.py."""
    output_dir: Path = ROOT / "assets"
    """Folder of page.png, page-narrow.png and report.png."""
    report: Path | None = None
    """Page of a comparison (runs/compare/DATASET/comparison.html)."""
    words: tuple[str, ...] = ("lamp", "grinder", "chain tool")
    """Of each, the most popular item whose title holds them is named; the second is taken away again."""


def name_items(page: Any, words: tuple[str, ...]) -> None:
    """Name items on the page, and take the second away."""
    page.wait_for_selector(".model li")
    for number, word in enumerate(words, 1):
        page.fill("#words", word)
        page.wait_for_selector("#options li")
        page.keyboard.press("Enter")
        page.wait_for_function(f"document.querySelectorAll('#history li').length === {number}")
        page.wait_for_function("document.body.dataset.shown === String(asked)")
    page.click("#history li:nth-child(2) button")
    page.wait_for_selector("#change:not([hidden])")
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")


def main(config: Config) -> None:
    """Start the service, and take the pictures."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError("playwright is missing: install requirements.txt") from error
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise UserError("neither chromium nor google-chrome is installed")
    config.output_dir.mkdir(parents=True, exist_ok=True)
    with running_service(*config.models) as (_, address), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        looks: tuple[tuple[str, int, Any], ...] = (("page", 1300, "light"), ("page-narrow", 390, "dark"))
        for name, width, scheme in looks:
            page = browser.new_page(viewport={"width": width, "height": 860}, color_scheme=scheme)
            page.goto(address)
            name_items(page, config.words)
            page.screenshot(path=config.output_dir / f"{name}.png")
        if config.report is not None:
            page = browser.new_page(viewport={"width": 1300, "height": 1240})  # down to the end of the first table
            page.goto(config.report.resolve().as_uri())
            page.screenshot(path=config.output_dir / "report.png")
        browser.close()
    print(f"pictures are in {config.output_dir}")


if __name__ == "__main__":
    run_command(main, Config)
