"""A headless Chromium for tests, driven by Chrome's DevTools protocol through a pipe: no port, and no package."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from file 3 and answers on file 4."""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--remote-debugging-pipe",
)


class Page:
    """A tab: what it shows, what it fetches, and what it complains of.

    Args:
        send: Sends a command of the protocol to the tab, and returns its answer.
        events: What the tab has told so far, in order.
    """

    def __init__(self, send, events):
        self.send, self._events = send, events

    @property
    def requests(self):
        """Addresses of everything that was fetched, the page itself included."""
        self.evaluate("0")  # what was told before this answer has been read
        return [e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"]

    @property
    def complaints(self):
        """Errors and warnings of the console, uncaught exceptions, and what the policy of the page forbade."""
        self.evaluate("0")
        found = []
        for event in self._events:
            method, params = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(each.get("value", each.get("description"))) for each in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
        return found

    def open(self, address):
        """Go to an address, and wait until it has loaded."""
        self.send("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression):
        """Return the value of a script, which may be a promise."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression, seconds=40):
        """Wait until a script is true, and return its value; True for a node, which has none here."""
        end = time.monotonic() + seconds
        while not (found := self.evaluate(f"(found => found instanceof Node || found)({expression})")):
            assert time.monotonic() < end, f"waited {seconds} s for {expression}"
            time.sleep(0.05)
        return found

    def prefer(self, scheme, media=""):
        """Prefer a light or a dark page, perhaps in print."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)

    def resize(self, width, height):
        """Give the page so many pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def click(self, x, y):
        """Move the mouse to a point of the window, in pixels, and click."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key, code=None):
        """Press a key by its name."""
        numbers = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=code or key, windowsVirtualKeyCode=numbers[key]
            )

    def picture(self):
        """Return a picture of the window, PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])


class _Connection:
    """The two ends of the pipe."""

    def __init__(self, write, read):
        self._write, self._read, self._rest, self._number = write, read, b"", 0
        self.events = {}

    def send(self, method, session=None, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if "method" in answer:
                self.events.setdefault(answer.get("sessionId"), []).append(answer)

    def _next(self, seconds):
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser(profile):
    """Start Chromium with a profile of its own, and hand over a function that opens a tab."""
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, to_write)]  # not the files 3 and 4
    command = [sys.executable, "-c", _LAUNCH, *map(str, ends), CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for end in (to_read, to_write, *ends):
        os.close(end)
    connection = _Connection(write, read)
    try:

        def tab(width=1200, height=900):
            target = connection.send("Target.createTarget", url="about:blank")["targetId"]
            session = connection.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            events = connection.events.setdefault(session, [])
            page = Page(lambda method, **params: connection.send(method, session, **params), events)
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.send(f"{domain}.enable")
            page.resize(width, height)
            page.prefer("light")
            return page

        yield tab
        connection.send("Browser.close")
    finally:
        os.close(write)
        os.close(read)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
