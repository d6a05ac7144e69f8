"""The page in a real browser: it shows, fetches nothing, and fits a desk and a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from patchline.export.evaluation.evaluate import evaluate_class
from patchline.export.evaluation.report.page import build_class_report, write_report
from patchline.runtime.image_file import read_image

from .lamp import BrightnessEngine, noise, write, write_lamps

DESK_PX, PHONE_PX, HEIGHT_PX = 1280, 390, 900
LONG = "a_class_name_without_any_space_" * 4 + "$x_1$<b>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page with two classes: one as it should be, one full of oddities."""
    root = tmp_path_factory.mktemp("data")
    write_lamps(root)
    write(root / "lamp" / "test" / "good" / "bright.png", noise(3, 0, 230))
    plain = evaluate_class(BrightnessEngine(), root)
    assert plain.problems == ()
    engine = BrightnessEngine(**{"class": LONG})
    odd = evaluate_class(engine, root, class_name="lamp")
    odd = replace(odd, pixel_roc=None, pro=None, problems=("/folder" * 60,), notes=("word " * 90,))
    reports = [
        build_class_report(plain, BrightnessEngine()),
        build_class_report(odd, engine),
    ]
    return write_report(reports, tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not here: apt-get install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(driver)
    chrome = webdriver.Chrome(options=options, service=service)
    try:
        yield chrome
    finally:
        chrome.quit()
        service.stop()


def show(browser: webdriver.Chrome, page: str, width_px: int, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width_px, "height": HEIGHT_PX, "deviceScaleFactor": 1, "mobile": width_px < 500},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get(page)


def test_every_picture_shows(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, DESK_PX)
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.naturalWidth, i.clientWidth])"
    )
    assert len(sizes) > 40
    assert all(natural > 0 and shown > 40 for natural, shown in sizes)
    charts = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)"
    )
    assert len(charts) == 5
    assert all(height > 150 for height in charts)


def test_nothing_is_fetched_and_nothing_complained_of(browser: webdriver.Chrome, page: str) -> None:
    browser.get_log("browser")  # what earlier pages said
    show(browser, page, DESK_PX)
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert browser.get_log("browser") == []


def test_a_broken_policy_would_be_noticed(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """The check above sees what it is there to see."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!DOCTYPE html><meta http-equiv="Content-Security-Policy" content="img-src data:">'
        '<img src="other.png">'
    )
    browser.get_log("browser")
    browser.get(bad.as_uri())
    assert browser.get_log("browser") != []


@pytest.mark.parametrize("width_px", [DESK_PX, 800, PHONE_PX, 320])
def test_it_never_scrolls_sideways(browser: webdriver.Chrome, page: str, width_px: int) -> None:
    show(browser, page, width_px)
    scroll, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth]"
    )
    assert inner == width_px
    assert scroll <= inner


def test_wide_tables_scroll_within_themselves(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, PHONE_PX)
    scroll, client = browser.execute_script(
        "const t = document.querySelector('.scroll'); return [t.scrollWidth, t.clientWidth]"
    )
    assert scroll > client > 300


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [DESK_PX, PHONE_PX])
def test_what_it_looks_like(
    browser: webdriver.Chrome, page: str, width_px: int, scheme: str, tmp_path: Path
) -> None:
    show(browser, page, width_px, scheme)
    path = tmp_path / f"{width_px}-{scheme}.png"
    assert browser.save_screenshot(str(path))
    shot = read_image(path)
    assert shot.shape[1] == width_px
    gray = cv2.cvtColor(shot, cv2.COLOR_BGR2GRAY)
    background = np.bincount(gray.ravel()).argmax()
    assert background > 230 if scheme == "light" else background < 40
    # Words and drawings: a good part of the page is not background, and spread over its height.
    drawn = np.abs(gray.astype(int) - int(background)) > 60
    assert 0.01 < drawn.mean() < 0.5
    assert all(part.any() for part in np.array_split(drawn, 6))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_their_background(
    browser: webdriver.Chrome, page: str, scheme: str
) -> None:
    """Contrast of every colour of words to its ground, by WCAG 2.2 (4.5 : 1)."""
    show(browser, page, DESK_PX, scheme)
    names = ("--ink", "--soft", "--good", "--defect", "--pixels", "--card", "--paper", "--wash")
    color = {
        name: browser.execute_script(
            "const e = document.body.appendChild(document.createElement('i'));"
            "e.style.color = `var(${arguments[0]})`; const c = getComputedStyle(e).color;"
            "e.remove(); return c.match(/\\d+/g).slice(0, 3).map(Number)",
            name,
        )
        for name in names
    }
    pairs = [(word, "--card") for word in names[:5]]
    pairs += [("--ink", "--paper"), ("--soft", "--paper"), ("--ink", "--wash")]
    ratios = {pair: contrast(color[pair[0]], color[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}


def contrast(one: list[int], two: list[int]) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(color: list[int]) -> float:
    parts = np.array(color) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_charts_follow_the_scheme(browser: webdriver.Chrome, page: str) -> None:
    def ink() -> str:
        text = browser.find_element(By.CSS_SELECTOR, ".chart svg text")
        return text.value_of_css_property("fill")

    show(browser, page, DESK_PX, "light")
    light = ink()
    show(browser, page, DESK_PX, "dark")
    assert ink() != light


def test_a_picture_is_enlarged_where_it_is_clicked(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, DESK_PX)
    picture = browser.find_elements(By.CSS_SELECTOR, ".frame img")[1]
    small, height = picture.size["height"], document_height(browser)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    picture.click()
    assert picture.size["height"] > 2 * small
    assert document_height(browser) == height
    browser.execute_script("document.activeElement.blur()")
    assert picture.size["height"] == small


def document_height(browser: webdriver.Chrome) -> int:
    return int(browser.execute_script("return document.documentElement.scrollHeight"))
