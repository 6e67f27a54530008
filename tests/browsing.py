"""A real browser, and the page served for it as `make app` does."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest
from notebook_tools import PROJECT

from helpers.config import Config
from helpers.runs import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-sync")
PAINTS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL without a GPU
UPLOAD = "input[type=file]"
LONG = 120_000  # ms

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def answers(address):
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


@contextmanager
def served(workspace, phase, generator, **more):
    """Run the page as `make app` does, in a process of its own, with networks that phases have left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZE_WORKSPACE", str(workspace))
        patch.setenv("COLORIZE_PROFILE", "smoke")
        run = Run("mine")
        run.path.mkdir(parents=True)
        for name, network in {phase: generator, **more}.items():
            run.save(name, network, Config.from_profile())
    env = os.environ | {"COLORIZE_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    port = free_port()
    command = [sys.executable, "-m", "helpers.apps.page", "--port", str(port)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            while not answers(f"http://127.0.0.1:{port}"):
                assert process.poll() is None, process.stdout.read()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
