"""A real browser opens deployed apps by their names, and keeps a WebSocket open through the router."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.e2e.platform import MiniPlatform

pytestmark = [pytest.mark.browser, pytest.mark.slow]
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def platform(make_platform: Callable[[str], MiniPlatform]) -> MiniPlatform:
    return make_platform("process")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


def test_a_deployed_app_opens_in_the_browser(platform: MiniPlatform, browser: webdriver.Chrome):
    platform.mini("deploy", str(EXAMPLES / "static"), "pages")
    browser.get(f"http://pages.localhost:{platform.port}/")
    assert browser.find_element(By.TAG_NAME, "h1").text == "Hello from a static site"
    assert browser.execute_script("return getComputedStyle(document.body).maxWidth") == "640px"


def test_an_unknown_app_gets_a_page_that_says_so(platform: MiniPlatform, browser: webdriver.Chrome):
    browser.get(f"http://nothing.localhost:{platform.port}/")
    assert "nothing.localhost" in browser.find_element(By.TAG_NAME, "body").text


def test_a_chat_over_websocket_reaches_the_other_end(platform: MiniPlatform, browser: webdriver.Chrome):
    platform.mini("deploy", str(EXAMPLES / "chat"), "chat")
    browser.get(f"http://chat.localhost:{platform.port}/")
    wait = WebDriverWait(browser, 20)
    wait.until(lambda driver: driver.find_elements(By.XPATH, "//li[text()='welcome']"))
    browser.find_element(By.ID, "text").send_keys("hello over there")
    browser.find_element(By.TAG_NAME, "button").click()
    wait.until(lambda driver: driver.find_elements(By.XPATH, "//li[text()='hello over there']"))
