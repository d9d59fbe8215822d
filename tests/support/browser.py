"""Debian's chromium, driven by Playwright: what people look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)  # as for pages: a busy machine takes longer than Playwright's 5 s
LOCAL = {"127.0.0.1", "localhost", ""}  # "": files, data: addresses
# Prefect's own page asks this host for the settings of its usage statistics, whatever the server's settings are.
PREFECTS = {"sr-client-cfg.amplitude.com"}


@contextmanager
def opened(
    width_px: int = 1300, height_px: int = 900, dark: bool = False, is_ours: bool = True, flags: Sequence[str] = ()
) -> Iterator[Page]:
    """Yield a page; at its end, no request has left this machine and, if it is ours, the console has no error.

    Prefect's page, which is not ours, may ask `PREFECTS`. `flags`: further arguments of chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on the PATH: install it, such as by `apt install chromium`")
    asked: set[str] = set()
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *flags])
        context: BrowserContext = browser.new_context(
            viewport={"width": width_px, "height": height_px}, color_scheme="dark" if dark else "light"
        )
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: asked.add(urlsplit(request.url).hostname or ""))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert asked <= (LOCAL if is_ours else LOCAL | PREFECTS)
    assert errors == [] or not is_ours
