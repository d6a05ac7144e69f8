"""The page in a real browser: it shows, controls, says what is lost, fits a desk and a phone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from patchline.runtime.camera.states import StreamState
from patchline.runtime.dashboard.server import Dashboard
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.image_file import read_image

from .conftest import TOKEN, Site, until
from .fake_line import (
    FakeLine,
    Part,
    camera_view,
    defect_event,
    drift_event,
    judged,
    lose_camera,
)

DESK_PX, PHONE_PX, HEIGHT_PX = 1440, 360, 900
EVENT = "e" * 32


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


@pytest.fixture(scope="module")
def line() -> Iterator[tuple[Site, FakeLine]]:
    """A running line with its site; one for all tests, because parts take long to draw."""
    site = Site()
    fake = FakeLine(site.live, site.controls, fps=20, defect_every=6, frames_per_part=8)
    fake.start()
    yield site, fake
    fake.stop()
    site.close()


@pytest.fixture
def site(line: tuple[Site, FakeLine], browser: webdriver.Chrome) -> Iterator[Site]:
    site = line[0]
    site.controls.calls.clear()
    site.controls.error = None
    site.controls.change("top", **vars(camera_view("top")))
    yield site
    browser.get("about:blank")


@pytest.fixture
def still(bad_part: Part, browser: webdriver.Chrome) -> Iterator[Site]:
    """A site with one frame and one event, in which nothing moves."""
    site = Site()
    frame = judged(bad_part, "top", 0)
    site.live.write(frame)
    site.live.notify(defect_event(frame, identity=EVENT))
    until(lambda: site.live.event_picture(EVENT))
    yield site
    browser.get("about:blank")
    site.close()


def show(
    browser: webdriver.Chrome, url: str, width_px: int = DESK_PX, scheme: str = "light"
) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width_px, "height": HEIGHT_PX, "deviceScaleFactor": 1, "mobile": width_px < 500},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get("about:blank")
    browser.get_log("browser")  # what earlier pages said
    browser.get(url)


def text(browser: webdriver.Chrome, selector: str) -> str:
    return str(
        browser.execute_script(
            "return document.querySelector(arguments[0])?.textContent ?? ''", selector
        )
    )


def pixels(browser: webdriver.Chrome, selector: str) -> Any:
    """Every tenth pixel of a canvas: ``[N, 4]`` RGBA."""
    values = browser.execute_script(
        "const c = document.querySelector(arguments[0]);"
        "if (!c || !c.width || !c.height) return [];"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const out = []; for (let i = 0; i < d.length; i += 40)"
        " out.push(d[i], d[i + 1], d[i + 2], d[i + 3]); return out",
        selector,
    )
    return np.array(values, np.int64).reshape(-1, 4)


def shown(browser: webdriver.Chrome, kind: str = "heat") -> Callable[[], bool]:
    """Whether a picture of this kind is there."""
    return lambda: bool(
        browser.execute_script(
            "const c = document.querySelector(`.picture[data-kind=${arguments[0]}]`);"
            "if (!c) return false;"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "const reds = d.filter((_, i) => i % 400 === 0);"
            "return Math.max(...reds) - Math.min(...reds) > 100",
            kind,
        )
    )


def choose(browser: webdriver.Chrome, kind: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f"label:has(input[value={kind}])").click()


def submit(browser: webdriver.Chrome, values: dict[str, str]) -> None:
    """Type values into a form and send it with Enter."""
    for name, value in values.items():
        field = browser.find_element(By.NAME, name)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value or Keys.BACKSPACE)
    field.send_keys(Keys.ENTER)


def test_it_shows_the_line(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(shown(browser))
    assert text(browser, ".camera .name") == "top"
    assert text(browser, ".camera .state .word") == "Running"
    assert text(browser, ".source") == "rtsp://***@10.0.0.7/stream1"
    until(lambda: text(browser, ".verdict .text") == "Good")
    until(lambda: text(browser, ".verdict .text") in ("Defect", "Anomalous"))
    until(lambda: browser.find_element(By.CSS_SELECTOR, ".verdict[data-tone=alarm]"))
    assert float(text(browser, "dd.fps")) > 10
    for name in ("p50", "p95", "p99"):
        assert text(browser, f"dd.{name}").endswith(" ms")
    until(lambda: int(text(browser, "dd.frames").replace(",", "")) > 10)


def test_nothing_is_complained_of_and_nothing_foreign_fetched(
    browser: webdriver.Chrome, site: Site
) -> None:
    show(browser, site.url)
    until(shown(browser))
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "button.thumbnail img"))
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    foreign = [name for name in fetched if not name.startswith((site.url, "data:"))]
    assert len(fetched) >= 5
    assert foreign == []
    assert browser.get_log("browser") == []


def test_a_broken_policy_would_be_noticed(browser: webdriver.Chrome, site: Site) -> None:
    """The check above sees what it is there to see."""
    show(browser, site.url)
    browser.execute_script(
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:1/x.png'}))"
    )
    until(lambda: browser.get_log("browser"))


def test_the_three_kinds_of_pictures(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(shown(browser))
    choose(browser, "influence")
    until(shown(browser, "influence"))
    choose(browser, "picture")
    until(shown(browser, "picture"))
    until(lambda: {kind for kind in site.live._looks.values() if kind} == {"picture"})
    # The choice outlives the page.
    show(browser, site.url)
    until(shown(browser, "picture"))
    choose(browser, "heat")
    until(shown(browser))


def test_the_kinds_can_be_chosen_by_keyboard(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(shown(browser))
    radio = browser.find_element(By.CSS_SELECTOR, "input[value=heat]")
    radio.send_keys(Keys.ARROW_RIGHT)
    until(shown(browser, "picture"))
    browser.find_element(By.CSS_SELECTOR, "input[value=picture]").send_keys(Keys.ARROW_LEFT)
    until(shown(browser))


def test_a_page_that_left_costs_nothing(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(shown(browser))
    browser.get("about:blank")
    until(lambda: not site.live._looks)


def test_a_threshold_reaches_the_line_and_the_chart(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(shown(browser))
    low = until(lambda: limit_row(browser))
    submit(browser, {"threshold": "45.25"})
    until(lambda: ("threshold", "top", 45.25) in site.controls.calls)
    until(lambda: text(browser, ".verdict .limit") == "of 45.25")
    until(lambda: "next frame" in text(browser, ".side > .message"))
    label = "return document.querySelector('.chart canvas').getAttribute('aria-label')"
    until(lambda: "threshold 45.25" in browser.execute_script(label))
    high = until(lambda: (row := limit_row(browser)) < low - 10 and row)
    browser.find_element(By.CSS_SELECTOR, ".threshold .own").click()
    until(lambda: ("threshold", "top", None) in site.controls.calls)
    until(lambda: text(browser, ".verdict .limit") == "of 27.5")
    until(lambda: limit_row(browser) > high + 10)
    assert not browser.find_element(By.CSS_SELECTOR, ".threshold .own").is_enabled()


def limit_row(browser: webdriver.Chrome) -> int:
    """The lowest row of the threshold's colour at the chart's right end, about now."""
    row = browser.execute_script(
        "const c = document.querySelector('.chart canvas'), w = c.width, h = c.height;"
        "const e = document.body.appendChild(document.createElement('i'));"
        "e.style.color = 'var(--limit)';"
        "const [r, g, b] = getComputedStyle(e).color.match(/\\d+/g).map(Number); e.remove();"
        "const d = c.getContext('2d').getImageData(w - 30, 0, 18, h).data; const rows = [];"
        "for (let y = 0; y < h; y++) for (let x = 0; x < 18; x++) {"
        " const i = 4 * (18 * y + x);"
        " if (Math.abs(d[i] - r) + Math.abs(d[i+1] - g) + Math.abs(d[i+2] - b) < 90)"
        "  rows.push(y);"
        "} return rows.length ? Math.max(...rows) : 0"
    )
    return int(row)


def test_what_somebody_types_is_not_written_over(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(shown(browser))
    field = browser.find_element(By.NAME, "threshold")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("33", Keys.TAB)
    site.controls.change("top", threshold=20.0)
    until(lambda: text(browser, ".verdict .limit") == "of 20")
    assert field.get_property("value") == "33"


def test_applying_what_holds_already_does_not_round_it(
    browser: webdriver.Chrome, site: Site
) -> None:
    site.controls.change("top", threshold=27.123456789)
    show(browser, site.url)
    until(lambda: text(browser, ".verdict .limit") == "of 27.12")
    browser.find_element(By.CSS_SELECTOR, ".threshold .apply").click()
    until(lambda: site.controls.calls)
    assert site.controls.calls == [("threshold", "top", 27.123456789)]


def test_a_trigger_reaches_the_line(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(shown(browser))
    submit(browser, {"needed": "2", "window": "9"})
    until(lambda: ("trigger", "top", Trigger(2, 9)) in site.controls.calls)
    browser.find_element(By.CSS_SELECTOR, ".trigger .own").click()
    until(lambda: ("trigger", "top", None) in site.controls.calls)
    window = browser.find_element(By.NAME, "window")
    browser.execute_script("document.activeElement.blur()")
    until(lambda: window.get_property("value") == "5")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"needed": "7", "window": "5"}, "The trigger 7/5 cannot be"),
        ({"threshold": ""}, "Expected a number as threshold."),
    ],
)
def test_what_cannot_be_is_a_sentence(
    browser: webdriver.Chrome, site: Site, values: dict[str, str], sentence: str
) -> None:
    show(browser, site.url)
    until(shown(browser))
    submit(browser, values)
    until(lambda: text(browser, ".side > .message").startswith(sentence))
    assert browser.find_element(By.CSS_SELECTOR, ".side > .message[data-tone=alarm]")
    assert site.controls.calls == []


@pytest.mark.parametrize("kind", [ConfigurationError, WriteError])
def test_what_the_line_refuses_is_a_sentence(
    browser: webdriver.Chrome, site: Site, kind: type[Exception]
) -> None:
    show(browser, site.url)
    until(shown(browser))
    site.controls.error = kind("state.json: the disk is full <b>")
    submit(browser, {"threshold": "30"})
    until(lambda: text(browser, ".side > .message") == "State.json: the disk is full <b>.")
    tone = "alarm" if kind is ConfigurationError else "warn"
    assert browser.find_element(By.CSS_SELECTOR, f".side > .message[data-tone={tone}]")


def test_events_have_pictures_that_can_be_enlarged(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "button.thumbnail img"))
    browser.execute_script("document.querySelector('button.thumbnail').focus()")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    until(lambda: browser.execute_script("return document.querySelector('dialog').open"))
    size = "return document.getElementById('enlarged-picture').naturalWidth"
    until(lambda: browser.execute_script(size) == 640)
    assert "peak" in text(browser, "#enlarged-text")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(lambda: not browser.execute_script("return document.querySelector('dialog').open"))


def test_the_end_of_an_event_leaves_the_focus_where_it_is(
    browser: webdriver.Chrome, still: Site, bad_part: Part
) -> None:
    show(browser, still.url)
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "button.thumbnail img"))
    assert "going on" in text(browser, "#events")
    browser.execute_script("document.querySelector('button.thumbnail').focus()")
    over = defect_event(judged(bad_part, "top", 0), identity=EVENT, over=True)
    still.live.notify(over)
    until(lambda: "going on" not in text(browser, "#events"))
    focused = browser.switch_to.active_element
    assert focused.get_attribute("class") == "thumbnail"
    until(lambda: text(browser, "#announcer") == "Defect on top is over")


def test_drift_and_a_lost_camera_are_said(browser: webdriver.Chrome, site: Site) -> None:
    show(browser, site.url)
    until(shown(browser))
    assert text(browser, "#banners") == ""
    site.controls.change("top", is_drifting=True)
    site.live.notify(drift_event())
    until(lambda: "top drifts" in text(browser, "#banners"))
    lose_camera(site.live, site.controls, "top")
    until(lambda: "top is reconnecting: rtsp://***@" in text(browser, "#banners"))
    until(lambda: text(browser, ".verdict .text") == "No signal")
    until(lambda: "Camera lost" in text(browser, "#events"))
    assert text(browser, "#line .word") in ("Camera lost", "Defect")
    site.controls.change("top", state=StreamState.RUNNING, detail="", is_drifting=False)
    until(lambda: text(browser, "#banners") == "")


def test_a_lost_connection_is_said_and_comes_back(
    browser: webdriver.Chrome, site: Site, line: tuple[Site, FakeLine]
) -> None:
    second = Dashboard(site.live, site.controls, port=0)
    second.start()
    show(browser, second.url)
    until(shown(browser))
    second.stop()
    until(lambda: "No connection to the line." in text(browser, "#banners"))
    until(lambda: text(browser, ".verdict .text") == "Unknown")
    assert text(browser, "#line .word") == "No connection"
    assert browser.title.startswith("No connection")
    port = int(second.url.rstrip("/").rpartition(":")[2])
    third = Dashboard(site.live, site.controls, port=port)
    third.start()
    until(lambda: text(browser, "#banners") == "")
    until(lambda: text(browser, ".verdict .text") != "Unknown")
    assert text(browser, "#line .word") != "No connection"
    browser.get("about:blank")
    third.stop()


def test_the_token_opens_the_page(browser: webdriver.Chrome) -> None:
    locked = Site(TOKEN)
    try:
        show(browser, locked.url)
        until(lambda: browser.current_url.endswith("/login"))
        field = browser.find_element(By.ID, "token")
        field.send_keys("wrong", Keys.ENTER)
        until(lambda: text(browser, "#message") == "This is not the dashboard's token.")
        field.clear()
        field.send_keys(TOKEN, Keys.ENTER)
        until(lambda: text(browser, ".camera .name") == "top")
        assert browser.execute_script("return document.cookie") == ""
        button = browser.find_element(By.ID, "logout")
        until(button.is_displayed)
        button.click()
        until(lambda: browser.current_url.endswith("/login"))
        browser.get(locked.url)
        until(lambda: browser.current_url.endswith("/login"))
    finally:
        browser.get("about:blank")
        locked.close()


LONG = "a_camera_name_without_any_space_" * 3 + "<b>"


@pytest.mark.parametrize("width_px", [DESK_PX, 800, PHONE_PX, 320])
def test_it_never_scrolls_sideways(browser: webdriver.Chrome, width_px: int) -> None:
    site = Site(names=("top", LONG))
    try:
        lose_camera(site.live, site.controls, LONG)
        site.live.notify(drift_event(LONG))
        show(browser, site.url, width_px)
        until(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".camera")) == 2)
        until(lambda: text(browser, "#events"))
        scroll, inner = browser.execute_script(
            "return [document.documentElement.scrollWidth, innerWidth]"
        )
        assert inner == width_px
        assert scroll <= inner
        # Nor does anything stick out of its card.
        out = browser.execute_script(
            "return [...document.querySelectorAll('.camera')].flatMap(card => {"
            " const right = card.getBoundingClientRect().right + 1;"
            " return [...card.querySelectorAll('*')].filter(e =>"
            "  e.getBoundingClientRect().right > right).map(e => e.className) })"
        )
        assert out == []
    finally:
        browser.get("about:blank")
        site.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [DESK_PX, PHONE_PX])
def test_what_it_looks_like(
    browser: webdriver.Chrome, site: Site, width_px: int, scheme: str, tmp_path: Path
) -> None:
    show(browser, site.url, width_px, scheme)
    until(shown(browser))
    path = tmp_path / "page.png"
    assert browser.save_screenshot(str(path))
    shot = read_image(path)
    assert shot.shape[1] == width_px
    gray = cv2.cvtColor(shot, cv2.COLOR_BGR2GRAY)
    brightness = np.median(gray[:, :4])  # the page's own ground, beside the cards
    assert brightness > 220 if scheme == "light" else brightness < 40
    # The curve and the threshold are drawn in two colours that differ.
    chart = pixels(browser, ".chart canvas")
    assert len({tuple(color) for color in chart[chart[:, 3] == 255][:, :3].tolist()}) >= 3


def test_everything_that_is_typed_or_pressed_has_a_name(
    browser: webdriver.Chrome, still: Site
) -> None:
    show(browser, still.url)
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "button.thumbnail img"))
    selector = "button, input, canvas[role=img], dialog"
    names = [
        (element.tag_name, element.accessible_name)
        for element in browser.find_elements(By.CSS_SELECTOR, selector)
        if element.is_displayed()
    ]
    assert len(names) >= 10
    assert [name for name in names if not name[1].strip()] == []
    live = browser.find_elements(By.CSS_SELECTOR, "[aria-live=polite]")
    assert len(live) >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_their_background(
    browser: webdriver.Chrome, site: Site, scheme: str
) -> None:
    """Contrast of every colour of words to its ground, by WCAG 2.2 (4.5 : 1)."""
    show(browser, site.url, DESK_PX, scheme)
    words = ("ink", "soft", "limit", "score", "accent", "good-ink", "alarm-ink", "warn-ink")
    pairs = [(word, "card") for word in words]
    pairs += [("on", tone) for tone in ("good", "alarm", "warn", "quiet")]
    pairs += [("ink", "paper"), ("soft", "paper")]
    color = {
        name: browser.execute_script(
            "const e = document.body.appendChild(document.createElement('i'));"
            "e.style.color = `var(--${arguments[0]})`; const c = getComputedStyle(e).color;"
            "e.remove(); return c.match(/\\d+/g).slice(0, 3).map(Number)",
            name,
        )
        for pair in pairs
        for name in pair
    }
    ratios = {pair: contrast(color[pair[0]], color[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}


def contrast(one: list[int], two: list[int]) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(color: list[int]) -> float:
    parts = np.array(color) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
