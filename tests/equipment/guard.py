#!/usr/bin/env python3
"""Runs a command that cannot outlive the test that started it.

    guard.py [--pidfile FILE] [--grace SECONDS] [--detached] -- CMD ARGS...

What for:    servers with many processes (postgres backends, Erlang's helpers) that
             leave their group, and tests that end by panic, abort or kill -9.
Called by:   the tests, with a pipe as its standard input, which nobody else may
             inherit; tests/stack, with --detached.
Guarantees:  when standard input ends, everything that CMD ever started is killed
             (SIGKILL) and reaped before the guard exits, with code 137, so that
             ports and data directories are free: that is also how a test crashes a
             server on purpose. When CMD ends by itself, what it left behind is
             killed too, and the guard exits with CMD's code (128 + n for signal n).
             If the guard itself is killed, CMD gets SIGKILL from the kernel; but then
             nobody waits for the rest, so crash a server by closing the pipe.
Signals:     TERM, INT and HUP go to CMD's group (for postgres INT is the fast stop);
             after a TERM or INT and --grace seconds (30) the rest is killed.
             USR1 pauses the whole tree (SIGSTOP), USR2 lets it go on; done when CMD's
             state in /proc is T, or is not.
             --pidfile holds the pid of CMD, which is also its group.
             --detached leaves standard input alone.
"""

import argparse
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None, use_errno=True)


def descendants():
    """Pids of all living processes below this one; orphans come back to it."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state not in (b"Z", b"X"):
                children.setdefault(int(parent), []).append(int(name))
    found, todo = [], [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def signal_all(number):
    for pid in descendants():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def reap(child):
    """Buries the dead; the exit status of `child` if it is among them."""
    status = None
    try:
        while True:
            pid, code = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return status
            if pid == child:
                status = code
    except ChildProcessError:
        return status


def kill_all(child):
    """Kills the tree until nothing of it is left, not even a zombie."""
    while True:
        signal_all(signal.SIGKILL)
        reap(child)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        time.sleep(0.002)


def start(command):
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == 1:
            os._exit(137)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"guard: {command[0]}: {error.strerror}", file=sys.stderr)
    os._exit(127)


def main():
    parser = argparse.ArgumentParser(usage="guard.py [--pidfile FILE] [--grace SECONDS] [--detached] -- CMD ARGS...")
    parser.add_argument("--pidfile")
    parser.add_argument("--grace", type=float, default=30)
    parser.add_argument("--detached", action="store_true")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit("guard: cannot become a subreaper")
    # The command starts first: handlers and the wake pipe are the guard's alone.
    child = start(args.command)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    if args.pidfile:
        with open(args.pidfile + ".new", "w", encoding="ascii") as file:
            file.write(f"{child}\n")
        os.rename(args.pidfile + ".new", args.pidfile)

    watched = [wake_read] if args.detached else [wake_read, 0]
    deadline = None
    while True:
        status = reap(child)
        if status is not None:
            kill_all(child)
            code = os.waitstatus_to_exitcode(status)
            sys.exit(code if code >= 0 else 128 - code)
        wait = None if deadline is None else max(0, deadline - time.monotonic())
        ready, _, _ = select.select(watched, [], [], wait)
        if (0 in ready and not os.read(0, 65536)) or (wait == 0 and not ready):
            kill_all(child)
            sys.exit(137)
        for number in os.read(wake_read, 4096) if wake_read in ready else b"":
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if number != signal.SIGHUP:
                    deadline = time.monotonic() + args.grace
                try:
                    os.killpg(child, number)
                except ProcessLookupError:
                    pass
            elif number == signal.SIGUSR1:
                signal_all(signal.SIGSTOP)
            elif number == signal.SIGUSR2:
                signal_all(signal.SIGCONT)


if __name__ == "__main__":
    main()
