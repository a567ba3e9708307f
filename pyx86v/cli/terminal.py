# SPDX-License-Identifier: GPL-2.0-or-later
"""`--interactive`: the user's terminal is the guest's serial terminal.

Keys go to COM1 as they are typed, Ctrl-C included; Ctrl-A is the way out.  What the guest sends appears at once.  While
the guest waits in HLT its time follows the wall clock, so an idle guest costs nothing and the hour does not race.
Input and output may as well be pipes; then nothing is a command, and the end of the input is not the guest's.
"""
import os
import select
import signal
import sys
import termios
import time
import tty
from contextlib import contextmanager

PERIOD_S = 0.02                 # how often a busy guest's terminal is served
PREFIX = 1                      # Ctrl-A
HELP = b"\r\nCtrl-A x  leave    Ctrl-A a  send Ctrl-A    Ctrl-A h  this help\r\n"
ENDING = (signal.SIGTERM, signal.SIGHUP)


class Left(Exception):
    """The user left by Ctrl-A x."""


class Terminal:
    """Between a machine's COM1 and two file descriptors.  `close()` gives the terminal back as it was."""

    def __init__(self, machine, source=None, target=None):
        self.machine = machine
        self.source = sys.stdin.fileno() if source is None else source
        self.target = sys.stdout.fileno() if target is None else target
        self.shown, self.prefixed, self.ended, self.busy = 0, False, False, False
        self.keys = os.isatty(self.source)
        self.before = termios.tcgetattr(self.source) if self.keys else None

    @contextmanager
    def opened(self):
        """Raw mode, the machine's idle time, and a timer for when it is busy; all undone at the end, whatever ends it."""
        handlers = {number: signal.signal(number, self.terminated) for number in ENDING}
        handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self.tick)
        try:
            if self.keys:
                print("pyx86v: Ctrl-A x leaves, Ctrl-A h helps", file=sys.stderr)
                tty.setraw(self.source)
            self.machine.on_idle(self.idle)
            signal.setitimer(signal.ITIMER_REAL, PERIOD_S, PERIOD_S)
            yield self
            self.show()
        finally:
            self.busy = True
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                self.machine.on_idle(None)
            finally:                            # a signal's exception may have come in between
                if self.keys:
                    termios.tcsetattr(self.source, termios.TCSADRAIN, self.before)
                for number, handler in handlers.items():
                    signal.signal(number, handler)

    @staticmethod
    def terminated(number, _):
        sys.exit(128 + number)

    def tick(self, *_):
        """SIGALRM: serve both directions, unless that is what was interrupted."""
        if not self.busy:
            self.busy = True
            try:
                self.show()
                self.take(0)
            finally:
                self.busy = False

    def idle(self, seconds):
        """The guest waits for its next event: wait for that long, or until something was typed."""
        began = time.monotonic()
        self.busy = True
        try:
            self.show()
            self.take(1.0 if seconds is None else min(seconds, 1.0))
        finally:
            self.busy = False
        return time.monotonic() - began

    def show(self):
        """Write what the guest has sent since the last time."""
        data = self.machine._sink(0, "console", self.shown)
        self.shown += len(data)
        while data:
            data = data[os.write(self.target, data):]

    def take(self, seconds):
        """Hand over what comes in within this time."""
        if self.ended:
            time.sleep(seconds)
        elif select.select([self.source], [], [], seconds)[0]:
            data = os.read(self.source, 4096)
            self.ended = not data
            self.machine.send(self.commands(data) if self.keys else data)

    def commands(self, data):
        """The bytes without what Ctrl-A makes of them.  Raises Left."""
        out = bytearray()
        for byte in data:
            if self.prefixed:
                self.prefixed = False
                if byte in b"xX":
                    raise Left
                if byte in b"hH?":
                    os.write(self.target, HELP)
                elif byte in b"aA\x01":
                    out.append(PREFIX)
            elif byte == PREFIX:
                self.prefixed = True
            else:
                out.append(byte)
        return bytes(out)
