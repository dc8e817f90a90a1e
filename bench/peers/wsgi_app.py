"""The routes of the conformance suite for a WSGI server behind the gate:

master-agent guard -- gunicorn --chdir bench/peers --threads 64 --bind unix:{socket} wsgi_app:app
"""

import os
import time
from urllib.parse import parse_qs

LARGE = b"x" * (20 * 1024 * 1024)

if "START_DELAY_MS" in os.environ:
    print("starting", flush=True)
    time.sleep(int(os.environ["START_DELAY_MS"]) / 1000)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    ms = int(parse_qs(environ.get("QUERY_STRING", "")).get("ms", ["0"])[0])

    def answer(body, status="200 OK"):
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    def pieces():
        yield b"first\n"
        time.sleep(ms / 1000)
        yield b"last\n"

    if path == "/":
        return answer(b"hello\n")
    if path == "/slow":
        time.sleep(ms / 1000)
        return answer(b"slow\n")
    if path in ("/stream", "/block"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces()
    if path == "/large":
        return answer(LARGE)
    if path == "/hang":
        time.sleep(3600)
    if path == "/upload":
        size = 0
        while chunk := environ["wsgi.input"].read(65536):
            size += len(chunk)
        return answer(f"{size}\n".encode())
    return answer(b"not found\n", "404 Not Found")
