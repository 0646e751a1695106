"""Freed memory goes back to the system."""

import subprocess
import sys
import threading

import pytest

from webapp import heap
from webapp.viewer.bounded import bounded

CODE = """
import sys, threading
import psutil
from webapp import heap
assert heap.few_arenas()
own = psutil.Process()
def fill():
    held = [bytes(60_000) for _ in range(4000)]  # too small to be given back one by one
    kept.append(held[-1])
kept = []
for _ in range(3):
    thread = threading.Thread(target=fill); thread.start(); thread.join()
before = own.memory_info().rss
heap.give_back()
print(before - own.memory_info().rss)
"""


@pytest.mark.skipif(heap._glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_given_back():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50e6


def test_it_is_given_back_after_each_answer_which_nobody_waits_for():
    held, done = threading.Event(), threading.Event()

    def afterwards() -> None:
        held.wait(10)
        done.set()

    assert bounded(lambda stop: 7, lambda: False, 10.0, "The work", afterwards) == (7, None)
    assert not done.is_set()
    held.set()
    assert done.wait(10)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    assert not heap.few_arenas()
    assert not heap.give_back()
