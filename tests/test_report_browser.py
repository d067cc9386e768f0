"""report.html in a real browser: Chromium without a window, driven by Selenium."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outputs import Output
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_report import BEFORE, HOSTILE, TOKENS, naive_nearest

from pipeline.commands.report import write
from pipeline.report import FILE
from pipeline.store import Store

REASON = "the held-out loss must be below 2.630 nats a pair, got 2.9"
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """One page at a time, at the size of a screen."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        """The page, when its scripts have run."""
        self.driver.get("about:blank")
        self.call("Emulation.setEmulatedMedia", media="", features=[])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # What came before.
        self.driver.get(path.as_uri())
        self.wait("return document.documentElement.dataset.ready")

    def call(self, command: str, **parameters: Any) -> Any:
        """A command of Chrome's own protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """What a script returns once that is true."""
        return WebDriverWait(self.driver, 10, 0.05).until(lambda _: self.run(script, *arguments))

    def ask(self, word: str) -> None:
        """Type a word into the box, and press Enter."""
        box = self.driver.find_element("id", "word")
        box.clear()
        box.send_keys(word, Keys.ENTER)

    def neighbors(self) -> list[tuple[str, float]]:
        """What the box answers."""
        script = """
            const rows = [...document.querySelectorAll("#neighbors li")];
            const text = (row, part) => row.querySelector(part).textContent;
            return rows.map((row) => [text(row, "bdi"), Number(text(row, ".cosine"))]);
        """
        return [(word, cosine) for word, cosine in self.run(script)]

    def requests(self) -> list[str]:
        """What was asked of disks and networks since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def log(self, name: str) -> list[dict[str, Any]]:
        """Entries since the page was opened."""
        entries: list[dict[str, Any]] = self.driver.get_log(name)
        return entries


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in OPTIONS:
        options.add_argument(option)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()


def page(directory: Path, tokens: list[str], **options: Any) -> tuple[Path, Output]:
    store = Store.open(directory / "out")
    output = Output(store, tokens).whole(**options)
    write(store)
    return Path(store.address) / FILE, output


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Output]:
    return page(tmp_path_factory.mktemp("plain"), TOKENS, before=BEFORE)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Output]:
    return page(tmp_path_factory.mktemp("hostile"), HOSTILE, before=BEFORE)


def test_the_page_opens_without_an_error_and_asks_for_nothing(browser: Browser, plain: Any) -> None:
    browser.open(plain[0])
    browser.ask("word3")
    assert browser.log("browser") == []
    assert browser.requests() == [plain[0].as_uri()]
    assert browser.run("return document.title") == "Blessed: 40 words · skipstream"
    drawn = browser.run(
        "return [...document.querySelectorAll('.chart svg')].map((svg) => svg.querySelectorAll"
        "('path').length)"
    )
    assert len(drawn) == 3 and min(drawn) > 5


def test_the_box_answers_with_the_neighbours_of_a_naive_search(
    browser: Browser, plain: Any
) -> None:
    path, output = plain
    unit = output.vectors / np.linalg.norm(output.vectors, axis=1, keepdims=True)
    nearest = naive_nearest(output.vectors, 10)
    browser.open(path)
    for typed, id_ in (("word3", 3), ("  WORD17 ", 17), ("word39", 39)):
        browser.ask(typed)
        found = browser.neighbors()
        assert [word for word, _ in found] == [TOKENS[other] for other in nearest[id_]]
        wanted = unit[nearest[id_]] @ unit[id_]
        np.testing.assert_allclose([cosine for _, cosine in found], wanted, atol=6e-4)


def test_a_search_finds_the_word_on_the_map(browser: Browser, plain: Any) -> None:
    browser.open(plain[0])
    state = """
        const option = echarts.getInstanceByDom(document.getElementById("map")).getOption();
        const named = (id) => option.series.find((one) => one.id === id).data.map((at) => at.name);
        const [x, y] = option.dataZoom;
        return {chosen: named("chosen"), near: named("near"), width: x.end - x.start,
                height: y.end - y.start, all: named("all").length};
    """
    before = browser.run(state)
    assert (before["all"], before["chosen"], before["width"]) == (40, [], 100)
    browser.ask("word5")
    after = browser.run(state)
    assert after["chosen"] == ["word5"]
    assert after["near"] == [word for word, _ in browser.neighbors()]
    assert after["width"] < 50 and after["height"] < 50
    browser.run("document.getElementById('map-out').click()")
    assert browser.run(state)["width"] > after["width"]
    browser.run("document.getElementById('map-all').click()")
    assert browser.run(state)["width"] == 100
    inside = """
        const map = echarts.getInstanceByDom(document.getElementById("map"));
        const at = map.getOption().series.find((one) => one.id === "chosen").data[0].value;
        const [x, y] = map.convertToPixel({gridIndex: 0}, at);
        return [x / map.getWidth(), y / map.getHeight()];
    """
    browser.ask("word5")
    assert all(0 < part < 1 for part in browser.run(inside))


def test_what_is_typed_is_completed_and_a_neighbour_leads_on(browser: Browser, plain: Any) -> None:
    browser.open(plain[0])
    box = browser.driver.find_element("id", "word")
    box.send_keys("word1")
    suggested = "return [...document.querySelectorAll('#suggestions li')].map(o => o.textContent)"
    assert browser.run(suggested) == [f"word1{n}" for n in range(5)]
    box.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    assert box.get_property("value") == "word11"
    assert box.get_attribute("aria-expanded") == "false"
    (first, _), *_ = browser.neighbors()
    browser.run("document.querySelector('#neighbors li button').click()")
    assert browser.run("return document.querySelector('#neighbors h3').textContent") == first
    browser.ask("<b>nothing</b>")
    said = browser.run("return document.getElementById('word-status').textContent")
    assert said == "<b>nothing</b> is not among the 40 words of this page."


@pytest.mark.parametrize("width", [320, 375, 820, 1280])
def test_nothing_is_wider_than_the_screen(
    width: int, browser: Browser, plain: Any, hostile: Any
) -> None:
    for path, _ in (plain, hostile):
        browser.open(path, width, 800)
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert browser.run("return document.documentElement.scrollWidth") <= width


def test_a_hostile_corpus_runs_nothing_and_is_shown_as_it_is(
    browser: Browser, hostile: Any
) -> None:
    path, _ = hostile
    browser.open(path)
    for word in HOSTILE:
        if "\u2028" not in word and "\u202e" not in word:  # A person cannot type these.
            browser.run(
                "const box = document.getElementById('word'); box.value = arguments[0];"
                "box.dispatchEvent(new Event('input'));",
                word,
            )
            shown = word if len(word) <= 48 else f"{word[:48]}…"
            assert (
                browser.run("return document.querySelector('#neighbors h3').textContent") == shown
            )
    assert browser.log("browser") == []
    assert browser.requests() == [path.as_uri()]
    assert browser.run("return document.querySelectorAll('script, img').length") == 3
    near = browser.run("return [...document.querySelectorAll('#neighbors bdi')].length")
    assert near == 11


def test_a_refused_night_shows_its_reasons_first(browser: Browser, tmp_path: Path) -> None:
    path, _ = page(tmp_path, TOKENS, reasons=(REASON,))
    browser.open(path)
    place = "return document.querySelector('.reasons').getBoundingClientRect().bottom"
    assert browser.run(place) < 500
    assert browser.run("return document.querySelector('.reasons').textContent") == REASON
    assert browser.run("return document.querySelector('#verdict .mark').className") == "mark bad"


def test_on_paper_the_page_is_light_and_whole(browser: Browser, plain: Any) -> None:
    browser.open(plain[0])
    background = "return getComputedStyle(document.body).backgroundColor"
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="screen", features=features)
    assert browser.run(background) == "rgb(22, 24, 27)"
    browser.call("Emulation.setEmulatedMedia", media="print", features=features)
    assert browser.run(background) == "rgb(255, 253, 248)"
    for hidden in (".ask", ".zoom", "nav"):
        style = f"return getComputedStyle(document.querySelector('{hidden}')).display"
        assert browser.run(style) == "none"
    assert browser.run("return document.querySelector('#map canvas').width") > 300
    printed = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF") and len(printed) > 30_000
    assert browser.log("browser") == []


def test_everything_has_a_name_and_every_heading_its_place(browser: Browser, plain: Any) -> None:
    browser.open(plain[0])
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]

    def value(node: Any, key: str) -> str:
        return str(node.get(key, {}).get("value", ""))

    named = [(value(node, "role"), value(node, "name")) for node in nodes if not node["ignored"]]
    asked = ("button", "combobox", "image", "link", "table", "img")
    assert {role for role, name in named if role in asked[:5] and not name} <= {"table"}
    assert sum(role == "image" for role, _ in named) >= 4
    levels = browser.run(
        "return [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
