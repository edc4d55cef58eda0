"""The README's picture of the demo: starts it with the shipped adapters, asks a question and photographs the page.

    python benchmarks/screenshot.py [--question "…"]

Writes benchmarks/results/demo.png. Needs a Chromium: `apt-get install chromium`, or `playwright install chromium`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from lite.demo.panels import EXAMPLES
from lite.demo.server import Place, start
from lite.runs import SHIPPED

OUT = Path(__file__).parent / "results" / "demo.png"
SIZE = {"width": 1280, "height": 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--question", default=EXAMPLES[0])
    parser.add_argument("--port", type=int, default=7999)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        demo = start(Path(folder), str(SHIPPED), place=Place(port=arguments.port))
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(f"http://127.0.0.1:{arguments.port}")
        page.locator("#question textarea").fill(arguments.question)
        page.locator("#ask").click()
        expect(page.locator("#steps .step.done")).to_have_count(4, timeout=120_000)
        page.mouse.move(0, 0)
        OUT.parent.mkdir(exist_ok=True)
        page.screenshot(path=OUT)
        browser.close()
        demo.close(verbose=False)


if __name__ == "__main__":
    main()
