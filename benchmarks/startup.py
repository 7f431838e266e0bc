"""Measure the commands that must not import TensorFlow, each from a cold process: the median of ten runs.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

import machine

COMMANDS = ("--help", "--version", "list", "train --help", "train image-classifier --help")

if __name__ == "__main__":
    print(machine.describe())
    for words in COMMANDS:
        seconds = []
        for _ in range(11):
            began = time.monotonic()
            subprocess.run([sys.executable, "-m", "dltoolkit", *words.split()], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.monotonic() - began)
        print(f"dltoolkit {words:35} {statistics.median(seconds[1:]):.3f} s")
