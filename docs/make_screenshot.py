"""Takes the picture of a report that README.md and the docs show.

    python run_pipeline.py
    python docs/make_screenshot.py out/runs/sample/report.html docs/images/report.png

Needs Chromium and its driver.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

WIDTH, HEIGHT = 1100, 820


def screenshot(page: Path, picture: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Writes the top of an HTML page as a PNG of `width` x `height` pixels, in its light colours.

    Raises:
        FileNotFoundError: Chromium or its driver is not on the PATH.
    """
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (browser and driver):
        raise FileNotFoundError("Chromium and chromedriver should be on the PATH: apt install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"):
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={profile}")
        chrome = webdriver.Chrome(options=options, service=Service(driver))
        try:
            features = [{"name": "prefers-color-scheme", "value": "light"}]
            chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            chrome.get(page.resolve().as_uri())
            WebDriverWait(chrome, 30).until(lambda _: chrome.execute_script(_READY))
            chrome.save_screenshot(str(picture))
        finally:
            chrome.quit()


# Plotly draws after the page has loaded.
_READY = """
const plots = [...document.querySelectorAll('.js-plotly-plot')];
return document.readyState === 'complete' && plots.every(plot => plot.querySelector('.main-svg'));
"""


if __name__ == "__main__":
    screenshot(Path(sys.argv[1]), Path(sys.argv[2]))
