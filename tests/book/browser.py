"""A headless Chromium, spoken to over its debugging protocol: enough to read a page and what went wrong."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Path of the installed browser, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. ``requests``, ``failures`` and ``errors`` fill while pages are opened."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._count = socket, 0
        self.requests: list[str] = []
        self.failures: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result; events that come before it are noted."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._count:
                return message.get("result", {})
            self._note(message.get("method"), message.get("params", {}))

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded and its mathematics is drawn."""
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.evaluate(
                f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'"
            ):
                break
            time.sleep(0.03)
        self.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 1) : 1")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return result.get("result", {}).get("value")

    def press(self, key: str, times: int = 1) -> None:
        """Press and release a named key, such as ArrowLeft, where the focus is."""
        code = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9, "Space": 32}[key]
        name = " " if key == "Space" else key
        for _ in range(times):
            for kind in ("rawKeyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=name, code=key, windowsVirtualKeyCode=code)

    def show_as(self, *, scheme: str = "light", width: int = 1280, height: int = 900) -> None:
        """Colour scheme and size of the window, for the pages opened from now on."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def _note(self, event: str | None, data: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(data["request"]["url"])
        elif event == "Network.responseReceived" and data["response"]["status"] >= 400:
            self.failures.append(f"{data['response']['status']} {data['response']['url']}")
        elif event == "Network.loadingFailed" and not data.get("canceled"):
            self.failures.append(data.get("errorText", "failed"))
        elif event == "Runtime.exceptionThrown":
            details = data["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details.get("text"))))
        elif event == "Runtime.consoleAPICalled" and data["type"] in ("error", "assert"):
            self.errors.append(str([argument.get("value") for argument in data["args"]]))
        elif event == "Log.entryAdded" and data["entry"]["level"] == "error":
            self.errors.append(f"{data['entry']['text']} {data['entry'].get('url', '')}")


@contextmanager
def browse(executable: str, profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile, and end it."""
    import websocket

    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--remote-allow-origins=*"]
    command = [executable, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _debugging_port(profile / "DevToolsActivePort", process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            tab = next(target for target in json.load(answer) if target["type"] == "page")
        socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60)
        try:
            yield Page(socket)
        finally:
            socket.close()
    finally:
        process.terminate()
        process.wait(timeout=30)


def _debugging_port(file: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(600):
        if file.exists() and len(lines := file.read_text().split()) >= 2:
            return lines[0]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the browser did not start (exit code {process.poll()})")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP on this machine; gives the address that it begins with."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
