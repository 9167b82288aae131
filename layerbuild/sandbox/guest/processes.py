"""A process of a function and all that comes of it: its output, its memory, its end. Part of `driver.py`."""

import codecs
import errno
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time

LARGEST_LOG = 10_000_000
POLL_SECONDS = 0.01
FILES = PROCESSES = 1024
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_printing = threading.Lock()


def tell(**event):
    line = json.dumps(event) + "\n"
    with _printing:
        sys.stdout.write(line)
        sys.stdout.flush()


class Process:
    """A process of the function, and all that it starts."""

    def __init__(self, spec, command, environment, **more):
        self.alone = spec["alone"]
        self.memory = spec["memory"]
        self.peak = 0
        self.shown = self.hidden = 0
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.popen = subprocess.Popen(
            command,
            env=environment,
            cwd=spec["root"] + "/var/task",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=more.pop("stderr", subprocess.STDOUT),
            start_new_session=True,
            preexec_fn=limit_processes if self.alone else None,
            **more,
        )
        os.set_blocking(self.popen.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.popen.stdout, selectors.EVENT_READ)

    def poll(self, seconds=POLL_SECONDS):
        """Passes on what it prints, for at most so long; returns whether it uses too much memory."""
        if self.selector.get_map():
            for _ in self.selector.select(seconds):
                self.read()
        else:
            time.sleep(seconds)
        pids = self.processes()
        used = sum(map(resident, pids))
        if used > self.memory and len(pids) > 1:  # pages that they share would count for each
            used = sum(map(proportional, pids))
        self.peak = max(self.peak, used)
        return used > self.memory

    def read(self):
        """Passes on what can be read now; returns whether there was something."""
        try:
            data = os.read(self.popen.stdout.fileno(), 1 << 16)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            return False
        if not data:
            self.selector.unregister(self.popen.stdout)
            return False
        room = max(0, LARGEST_LOG - self.shown)
        self.shown += len(data)
        self.hidden += max(0, len(data) - room)
        if room:
            tell(log=self.decoder.decode(data[:room]))
        return True

    def drain(self):
        """Passes on the rest of what was printed so far."""
        while self.selector.get_map() and self.selector.select(0) and self.read():
            pass
        if rest := self.decoder.decode(b"", final=True):
            tell(log=rest)
        if self.hidden:
            tell(report="[{:,} bytes more of output are not shown]".format(self.hidden))
        self.shown = self.hidden = 0

    def processes(self):
        """The ids of all processes that are not this program's own."""
        own = {os.getpid(), os.getppid(), 1}
        if self.alone:
            return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in own]
        # What left its parent came to this process, where the system has a way to ask for that.
        return [pid for pid in {*descendants(self.popen.pid), *descendants(os.getpid())} if pid not in own]

    def end(self):
        """Ends it, and all that it started."""
        for _ in range(100):
            left = self.processes()
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            self.popen.poll()
            reap(self.popen.pid)
            if not [pid for pid in self.processes() if resident(pid) >= 0 and not is_zombie(pid)]:
                break
            time.sleep(POLL_SECONDS)
        self.popen.wait()


def limit_processes():
    """In a function's process: counted are all of its user's, on the whole machine but in a user namespace."""
    import resource

    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))


def resident(pid):
    """Bytes of memory that a process has; 0 if it is gone."""
    try:
        with open("/proc/{}/statm".format(pid)) as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def proportional(pid):
    """Bytes of memory that a process has, its part of what it shares with others; 0 if it is gone."""
    try:
        with open("/proc/{}/smaps_rollup".format(pid)) as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
    except (OSError, ValueError):
        return 0


def is_zombie(pid):
    try:
        with open("/proc/{}/stat".format(pid)) as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return True


def descendants(pid):
    """A process and those that came of it, as far as /proc tells."""
    parents = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return [pid]
    for name in names:
        try:
            with open("/proc/{}/stat".format(name)) as file:
                fields = file.read().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(name))
            # What left its parent is still of its session, unless it left that, too.
            if int(fields[3]) == pid and int(fields[1]) in (1, os.getpid()):
                parents.setdefault(pid, []).append(int(name))
        except (OSError, IndexError, ValueError):
            pass
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += [child for child in parents.get(one, []) if child not in found]
    return found


def reap(kept):
    """Lets go of processes that were left to this one, as process 1 has to."""
    while os.getpid() == 1:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None or info.si_pid == kept:
                return
            os.waitpid(info.si_pid, os.WNOHANG)
        except OSError:
            return
