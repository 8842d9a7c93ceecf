#!/usr/bin/env python3
"""The page /status in Chromium, before, during and after a stop, wide and narrow, light and dark.

    python3 tests/proxies/status_page.py DEMO [FOLDER]

DEMO is the example's binary; into FOLDER go screenshots, to be looked at. Ends with 3 if there is no Chromium.
"""

import base64
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HANG_S = 60
VIEWS = [("wide-light", 1280, "light"), ("wide-dark", 1280, "dark"), ("narrow-light", 400, "light"), ("narrow-dark", 400, "dark")]


class Tab:
    """A page of the browser, by its DevTools protocol: JSON over a WebSocket."""

    def __init__(self, port, width, scheme):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        url = json.load(urllib.request.urlopen(request, timeout=HANG_S))["webSocketDebuggerUrl"]
        host, path = url[len("ws://"):].split("/", 1)
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=HANG_S)
        key = base64.b64encode(os.urandom(16)).decode()
        fields = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        self.stream.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(1)
        self.number, self.events = 0, []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.stream.recv(count - len(data))
            if not more:
                sys.exit("Chromium has gone")
            data += more
        return data

    def message(self):
        data = b""
        while True:
            first, length = self.read(2)
            if length == 126:
                (length,) = struct.unpack(">H", self.read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.read(8))
            data += self.read(length)
            if first & 0x80:
                return json.loads(data)

    def call(self, method, **parameters):
        self.number += 1
        data = json.dumps({"id": self.number, "method": method, "params": parameters}).encode()
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        # The mask is of zeros.
        self.stream.sendall(b"\x81" + length + bytes(4) + data)
        while True:
            message = self.message()
            if message.get("id") == self.number:
                return message["result"]
            self.events.append(message)

    def ask(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression):
        end = time.monotonic() + HANG_S
        while not self.ask(expression):
            if time.monotonic() > end:
                sys.exit(f"never true: {expression}\n{self.ask('document.body.innerText')}")
            time.sleep(0.05)

    def shoot(self, folder, name, width):
        height = self.ask("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        with open(os.path.join(folder, f"{name}.png"), "wb") as file:
            file.write(base64.b64decode(shot["data"]))


def port_in(stream, pattern):
    for line in stream:
        if found := re.search(pattern, line):
            return int(found[1])
    sys.exit(f"no line like {pattern}")


def check(demo, chromium, folder, profile):
    server = subprocess.Popen(
        [demo, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--grace", "8"], stderr=subprocess.PIPE, text=True
    )
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
    browser = subprocess.Popen(
        [chromium, *options, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True
    )
    try:
        ports = {}
        while len(ports) < 2:
            found = re.match(r"(\w+) on http://127\.0\.0\.1:(\d+)$", server.stderr.readline())
            ports[found[1]] = int(found[2])
        debugging = port_in(browser.stderr, r"DevTools listening on ws://127\.0\.0\.1:(\d+)/")
        threading.Thread(target=browser.stderr.read, daemon=True).start()
        page = f"http://127.0.0.1:{ports['admin']}/status"
        slow = socket.create_connection(("127.0.0.1", ports["listening"]))
        slow.sendall(b"GET /sleep/100000 HTTP/1.1\r\nHost: test\r\n\r\n")
        tabs = [(name, width, Tab(debugging, width, scheme)) for name, width, scheme in VIEWS]
        for _, _, tab in tabs:
            tab.call("Page.navigate", url=page)
        show(server, tabs, folder)
        for name, _, tab in tabs:
            judge(name, tab, page)
    finally:
        for process in (server, browser):
            process.kill()
            process.wait()


def show(server, tabs, folder):
    def all_wait_for(what, expression):
        for name, width, tab in tabs:
            tab.wait_for(expression)
            if folder:
                tab.shoot(folder, f"{what}-{name}", width)

    all_wait_for("serving", "document.title == 'Serving · allout' && document.querySelectorAll('.wide tr').length == 1")
    # Rates, of at least a second event.
    all_wait_for("rates", "document.querySelector('polyline').getAttribute('points').split(' ').length > 2")
    server.send_signal(signal.SIGTERM)
    all_wait_for("draining", "document.querySelector('main.draining .left b') != null")
    # It runs down, between events too.
    left = "+document.querySelector('.left b')?.textContent"
    for _, _, tab in tabs:
        before = tab.ask(left)
        tab.wait_for(f"document.querySelector('main.over') || {left} < {before}")
    said = server.stderr.read().splitlines()
    if not any(line.startswith("still here: http; 1 connection; GET /sleep/100000 for ") for line in said):
        sys.exit(f"nobody said who is still here: {said}")
    all_wait_for("over", f"document.querySelector('main.over.cut .hero p')?.textContent == {json.dumps(said[-1])}")


def judge(name, tab, page):
    tab.ask("1")
    asked = {e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"}
    if asked != {page}:
        sys.exit(f"{name}: it asks others: {asked}")
    for event in tab.events:
        if event["method"] == "Runtime.exceptionThrown":
            sys.exit(f"{name}: {event['params']}")
        # Once the server has gone, nobody answers.
        if event["method"] == "Log.entryAdded" and "ERR_CONNECTION" not in (text := event["params"]["entry"]["text"]):
            sys.exit(f"{name}: {text}")
    print(f"{name}: serving, draining, all out; nothing but {page} was asked for")


def main():
    demo, folder = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    chromium = shutil.which("chromium")
    if chromium is None:
        print("skipped: there is no Chromium", file=sys.stderr)
        sys.exit(3)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        check(demo, chromium, folder, profile)


if __name__ == "__main__":
    main()
