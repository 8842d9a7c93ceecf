"""allout as systemd starts it: systemd-socket-activate binds and hands over, this is the manager's notify socket.

    activate.py PROGRAM FOLDER

Every message is expected in its order and with its text.
"""

import os
import socket
import subprocess
import sys

HANG = 30
USEC = 1_000_000
WATCHDOG_USEC = 400_000


def ask(place, request):
    """One request on a connection of its own; the whole answer."""
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(HANG)
        client.connect(place)
        client.sendall(f"{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return client.makefile("rb").read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(program, folder):
    path, tcp = os.path.join(folder, "activated"), ("127.0.0.1", free_port())
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(os.path.join(folder, "notify"))
    manager.settimeout(HANG)

    def expect(*wanted):
        message = manager.recv(4096).decode()
        assert message in wanted, f"{message!r}, not {wanted!r}"
        print(message.replace("\n", "; "))
        return message

    variables = [f"NOTIFY_SOCKET={manager.getsockname()}", f"WATCHDOG_USEC={WATCHDOG_USEC}"]
    command = ["systemd-socket-activate", f"--listen=127.0.0.1:{tcp[1]}", f"--listen={path}", "--fdname=web:local"]
    command += [word for variable in variables for word in ("--setenv", variable)]
    command += [program, "--lame-duck", "0.5", "--grace", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(process.stderr.readline, "")
        for _ in range(2):
            next(line for line in lines if line.startswith("Listening on "))
        # The first client makes systemd-socket-activate become allout, which answers it.
        assert ask(path, "GET /ping").endswith("\r\n\r\npong")
        assert ask(tcp, "GET /readyz").startswith("HTTP/1.1 200 ")
        expect("READY=1")
        for _ in range(3):
            expect("WATCHDOG=1")
        assert ask(tcp, "POST /shutdown").startswith("HTTP/1.1 200 ")
        stopping = f"STOPPING=1\nSTATUS=stopping: /shutdown\nEXTEND_TIMEOUT_USEC={int(4.5 * USEC)}"
        while expect("WATCHDOG=1", stopping) != stopping:
            pass
        said = list(lines)
        assert process.wait(HANG) == 0 and said[-1].startswith("all out: /shutdown; "), said
        manager.setblocking(False)
        rest = []
        try:
            while True:
                rest.append(manager.recv(4096).decode())
        except BlockingIOError:
            pass
        # While it is a lame duck its loops respond, and that is told; no second stop is.
        assert set(rest) <= {"WATCHDOG=1"}, rest
    finally:
        process.kill()
        process.wait()


main(*sys.argv[1:])
