"""A headless Chromium for the pages' tests: Debian's, driven by Selenium."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from selenium import webdriver

PACKAGES = ("chromium", "chromium-driver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--no-proxy-server", "--window-size=1280,900",
         # No other name is found: what the page needs, it has from the server.
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")


def chromium() -> tuple[str, str]:
    """Find browser and driver; a fresh Debian gets them where this user may install packages."""
    def found() -> list[str | None]:
        return [shutil.which("chromium"), shutil.which("chromedriver")]

    install = f"apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
    if None in found() and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(f"apt-get update -qq && {install} -qq", shell=True, check=False,
                       env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, timeout=600)
    browser, driver = found()
    if browser is None or driver is None:
        pytest.fail("The page's tests need Chromium and its driver. On Debian run as root: "
                    + install)
    return browser, driver


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Start one headless Chromium with an empty profile."""
    binary, driver = chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        started = webdriver.Chrome(options, webdriver.ChromeService(driver))
        yield started
        started.quit()
