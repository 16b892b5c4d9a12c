"""A headless Chromium that is driven through a pipe, by the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Chromium:
    """One browser with one page. ``console`` has what the page logged, and every error."""

    def __init__(self, width=1200, *, height=900, dark=False):
        self.folder = tempfile.mkdtemp(prefix="chromium-")
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        words += [f"--user-data-dir={self.folder}", "--remote-debugging-pipe", "about:blank"]
        line = f'exec "$0" "$@" 3<&{read_commands} 4>&{write_answers}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, CHROMIUM, *words],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._number = 0
        self._rest = b""
        self.console = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.requests = []
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=media)

    _session = None

    def send(self, method, **parameters):
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _receive(self):
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 16)
            assert part, "Chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        parameters = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.console.append(json.dumps(parameters["exceptionDetails"])[:500])
        if event["method"] == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(parameters["args"])[:500])
        if event["method"] == "Log.entryAdded":
            self.console.append(parameters["entry"]["text"] + " " + parameters["entry"].get("url", ""))
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def open(self, url):
        """Load a page, and wait until its scripts have run."""
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression):
        """Return the value of an expression of JavaScript; a promise is waited for."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression, seconds=20):
        """Wait until an expression is true."""
        poll = (
            f"new Promise((done) => {{ const end = Date.now() + {seconds * 1000};"
            f" const look = () => ({expression}) || Date.now() > end ? done(Boolean({expression}))"
            " : setTimeout(look, 20);"
            " look(); })"
        )
        for _ in range(3):
            try:
                assert self.evaluate(poll), f"never true: {expression}"
                return
            except AssertionError as error:
                # The page was replaced while the expression was polled.
                if "Context" not in str(error) and "navigated" not in str(error):
                    raise
        raise AssertionError(expression)

    def key(self, name, text=""):
        """Press a key."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        common = {"key": name, "code": name, "windowsVirtualKeyCode": codes.get(name, 0)}
        if name == "Enter":
            text = "\r"
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        """Type text into what has the focus."""
        self.send("Input.insertText", text=text)

    def photograph(self, path):
        """Save a picture of the whole page."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait(30)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self.folder, ignore_errors=True)
