"""A real server and a real Chromium, for the tests of the page."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, environment

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [
    name
    for name, is_there in (
        ("chromium (apt install chromium)", CHROMIUM),
        ("playwright (pip install playwright)", find_spec("playwright")),
        ("the extra [web]", find_spec("starlette") and find_spec("uvicorn")),
    )
    if not is_there
]
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]
WAIT_MS = 60_000  # for a step of a page, on a busy machine
PATIENCE = 120  # seconds


@contextmanager
def serve(model: Path, corrections: Path, *options: str) -> Iterator[str]:
    """The address of a server in a process of its own."""
    arguments = ["serve", str(model), "--port", "0", "--device", "cpu", "--corrections", str(corrections), *options]
    program = [sys.executable, "-m", "whisper_ft", *arguments]
    with subprocess.Popen(program, cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if address := re.search(r"http://\S+", line):
                    yield address[0]
                    return
            raise AssertionError(f"no address: {lines}")
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    """The driver of browsers. It ends with the module, because asyncio cannot be used beside it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@contextmanager
def chromium(playwright: Any, sound: Path | None = None, *flags: str) -> Iterator[Any]:
    """A headless Chromium, whose microphone plays a WAV file once, from the moment when it is opened."""
    fake = ["--use-fake-device-for-media-stream"]
    if sound is not None:
        fake.append(f"--use-file-for-fake-audio-capture={sound}%noloop")
    variables = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    arguments = ["--no-sandbox", "--disable-gpu", *fake, *flags]
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, env=variables)
    try:
        yield browser
    finally:
        browser.close()


class Visit:
    """A visit to the page: all requests and complaints of the browser are kept."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.goto(address)
        self.until("document.querySelector('#language').length > 0")

    def until(self, condition: str) -> None:
        """Wait until an expression is true. Playwright's own wait uses eval, which the policy of the page forbids."""
        end = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(20)

    def upload(self, path: Path) -> None:
        """Choose a file, and wait for the end of its transcription."""
        self.page.set_input_files("#file", str(path))
        self.wait()

    def wait(self) -> None:
        """Wait for the end of a transcription, which the page began."""
        self.page.wait_for_selector("#result", state="visible")
        self.page.wait_for_selector("#progress", state="hidden")

    def text(self, selector: str) -> str:
        """Visible text of an element with single spaces."""
        return " ".join(self.page.inner_text(selector).split())

    @property
    def words(self) -> str:
        """The transcript on the page."""
        return " ".join(self.page.locator("#text .word").all_inner_texts())

    def close(self) -> None:
        self.context.close()
