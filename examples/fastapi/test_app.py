"""The two tests that a fail-safe shutdown has to pass, with nothing but Python's own library.

    make test
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
GUARD = os.environ.get("GUARD", f"node {HERE.parent.parent / 'dist/main.js'}").split()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    def __init__(self, directory):
        self.port = free_port()
        environment = {
            **os.environ,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "OPS_PORT": "off",
            "STATE_DIR": f"{directory}/state",
            "LOG_FORMAT": "text",
        }
        command = [*GUARD, "guard", "--", "uvicorn", "--app-dir", str(HERE), "app:app", "--uds", "{socket}"]
        self.process = subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)
        self.lines = []
        self.heard = threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()
        self.line("Service state: RUNNING")

    def listen(self):
        for line in self.process.stdout:
            with self.heard:
                self.lines.append(line)
                self.heard.notify_all()

    def line(self, text):
        with self.heard:
            if not self.heard.wait_for(lambda: any(text in line for line in self.lines), timeout=60):
                raise AssertionError(f"no line {text!r} in {self.lines}")

    def ask(self, path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.line("Service state: STOPPING")

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class FailSafe(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.service = Service(directory.name)
        self.addCleanup(self.service.end)

    def in_flight(self, seconds):
        """A report that is under way, and where its answer will be."""
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.service.ask(f"/report?seconds={seconds}")))
        thread.start()
        time.sleep(seconds / 4)
        return thread, answers

    def test_an_in_flight_request_completes_and_new_ones_are_refused(self):
        thread, answers = self.in_flight(2)
        self.service.stop()
        status, body = self.service.ask("/data?item=late", method="POST")
        self.assertEqual(status, 503)
        self.assertEqual(
            body,
            {
                "error": "Service Unavailable",
                "message": "Service is shutting down. Please try again later.",
                "service_state": "stopping",
                "fail_safe": True,
            },
        )
        thread.join()
        self.assertEqual(answers, [(200, {"report": "done", "seconds": 2.0})])
        self.assertEqual(self.service.process.wait(timeout=60), 0)
        self.service.line("Service state: STOPPED - All requests completed gracefully")

    def test_it_serves_before_and_leaves_at_once_when_nothing_is_in_flight(self):
        self.assertEqual(self.service.ask("/health"), (200, {"status": "healthy"}))
        status, made = self.service.ask("/data?item=tea", method="POST")
        self.assertEqual(status, 201)
        self.assertEqual(self.service.ask(f"/data/{made['id']}"), (200, made))
        self.service.stop()
        self.assertEqual(self.service.process.wait(timeout=60), 0)


if __name__ == "__main__":
    unittest.main()
