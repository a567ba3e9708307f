# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's terminal as the guest's serial console: a Linux shell driven by pexpect, and pipes."""
import os
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pexpect
import pytest

import linux_guest
from pyx86v import Machine
from pyx86v.cli import guests

ROOT = Path(__file__).resolve().parents[1]
SHELL = """#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs dev /dev
echo SHELL-READY
exec busybox setsid sh -c "exec sh -i < /dev/ttyS0 > /dev/ttyS0 2>&1"
"""
TIMEOUT_S = 40


@pytest.fixture(scope="module")
def shell(linux, tmp_path_factory):
    """The arguments of `pyx86v` that boot into a shell."""
    disk = tmp_path_factory.mktemp("shell") / "shell.cpio"
    disk.write_bytes(linux_guest.initrd(init=SHELL))
    kernel = linux.kernel
    return ["run", str(kernel), "--interactive", "--quiet", "--initrd", str(disk), "--kernel-args", f"{linux.args} quiet", "--memory", str(linux.memory)]


class Session:
    """`pyx86v` on a terminal of its own, kept open so that its settings can be compared."""

    def __init__(self, arguments):
        self.child = pexpect.spawn(sys.executable, ["-m", "pyx86v", *arguments], cwd=ROOT, timeout=TIMEOUT_S, dimensions=(25, 200))
        self.settings = self.now()

    def now(self):
        return termios.tcgetattr(self.child.child_fd)

    def ready(self):
        self.child.expect("Ctrl-A x leaves")
        self.child.expect("SHELL-READY")
        self.child.expect("# ")
        assert self.now() != self.settings, "raw mode"
        return self

    def command(self, line, *answer):
        self.child.send(line + "\r")
        for each in answer:
            self.child.expect(each)
        found = self.child.match
        self.child.expect("# ")
        return found

    def ended(self):
        self.child.expect(pexpect.EOF)
        restored = self.now()
        self.child.close()
        assert restored == self.settings, "the terminal is as it was"
        return self.child.exitstatus


@pytest.mark.linux
def test_a_shell_on_a_terminal(shell):
    session = Session(shell).ready()
    session.command("echo $((6 * 7))", r"\r\n42\r\n")
    session.command("uname -r", re.escape(linux_guest.kernel().name.partition("-")[2]))
    session.child.send("sleep 1000\r")
    session.child.expect("sleep 1000\r\n")
    session.child.send("\x03")                          # Ctrl-C is the guest's
    session.child.expect("# ")
    session.child.send("\x01h")
    session.child.expect("Ctrl-A x  leave")
    session.child.send("qz\x01aqx\r")                  # Home: typed before what is there
    session.child.expect("qxqz: not found")
    session.child.expect("# ")
    began, used = time.monotonic(), cpu_seconds(session.child.pid)
    time.sleep(2)
    waited, burnt = time.monotonic() - began, cpu_seconds(session.child.pid) - used
    assert burnt < 0.25 * waited, "a guest that waits for a key does not burn the processor"
    before = session.command("cat /proc/uptime", r"\r\n([0-9.]+) ")[1]
    after = session.command("sleep 1; cat /proc/uptime", r"\r\n([0-9.]+) ")[1]
    assert 1 <= float(after) - float(before) < 20, "idle time passes by the wall clock"
    session.child.send("reboot -f\r")
    assert session.ended() == 0, "the guest ends the session"


def cpu_seconds(pid):
    """User and system time of a process (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.linux
def test_pipes(shell):
    """No terminal anywhere: no command keys, no raw mode; what comes before the guest listens is lost, as on a line."""
    with subprocess.Popen([sys.executable, "-m", "pyx86v", *shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          cwd=ROOT) as child:
        seen = b""
        while b"# " not in seen:
            seen += os.read(child.stdout.fileno(), 4096)
        out, errors = child.communicate(b"echo piped $((2 + 3))\nreboot -f\n", timeout=TIMEOUT_S)
    assert child.returncode == 0 and b"\r\npiped 5\r\n" in out and b"Ctrl-A" not in errors


def leave(child):
    child.send("\x01x")


def terminate(child):
    os.kill(child.pid, signal.SIGTERM)


@pytest.mark.parametrize("how, status", [(leave, 0), (terminate, 128 + signal.SIGTERM)])
def test_leaving_a_guest_that_never_ends_restores_the_terminal(tmp_path, how, status):
    """A loop without HLT is served by a timer."""
    loop = tmp_path / "loop.bin"
    loop.write_bytes(b"\x90" * 65520 + b"\xEB\xFE" + b"\x90" * 14)
    session = Session(["run", str(loop), "--interactive", "--quiet"])
    session.child.expect("Ctrl-A x leaves")
    time.sleep(0.2)
    assert session.now() != session.settings, "raw mode"
    how(session.child)
    assert session.ended() == status


@pytest.mark.parametrize("more", [["--json", "-"], ["--guest", "hello"]])
def test_what_cannot_be_interactive(more):
    done = subprocess.run([sys.executable, "-m", "pyx86v", "run", "--interactive", *(["hello"] if "--json" in more else []), *more],
                          cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--interactive" in done.stderr


def test_idle_time_is_the_hooks(monkeypatch):
    """ROM `timer` waits in HLT for ticks; where a hook passes the time it is asked for, the guest sees the same."""
    plain, paced = Machine(), Machine()
    asked = []
    for machine in (plain, paced):
        machine.load(guests.image("timer"))
    paced.on_idle(lambda seconds: asked.append(seconds) or seconds)
    assert plain.run() == paced.run()
    assert paced.console == plain.console and paced.cycles - plain.cycles in range(-len(asked), len(asked) + 1)
    assert asked and abs(sum(asked) - plain.ledger["idle"] / 3.4e9) < 1e-3


def test_an_exception_of_the_idle_hook_comes_out():
    machine = Machine()
    machine.load(guests.image("timer"))
    machine.on_idle(lambda seconds: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        machine.run()
    machine.on_idle(None)
    assert machine.run().status == 0


def test_several_guests_have_no_idle_hook():
    with pytest.raises(ValueError, match="on_idle: several guests"):
        Machine(guests=[{}, {}]).on_idle(lambda seconds: 0)
