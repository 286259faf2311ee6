"""Tests every command that writes with full or read-only disks, limits of file sizes, and streams that accept no
output."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from campaign.children import Ended, command
from campaign.children import run as run_child
from campaign.commands import Command, check_snapshots, commands, judge, load, words
from campaign.job import Job, Skipped, empty
from campaign.outcome import message

HELP = "every command that writes, on full and read-only disks, and with streams that take nothing"
UNIT = "runs"
LEAST = 10
SECONDS = 200.0
"""Maximum seconds of one run."""
CODES = (0, 1, 2)
CAUSES = re.compile(r"space|too large|too many|read-only|quota|cannot be written|cannot write", re.IGNORECASE)
"""Words for the reason of a failed write; the message must contain one of them."""
PAGE = 4096
NEW_NAMESPACE, NEW_USER = 0x20000, 0x10000000
"""unshare's flags CLONE_NEWNS and CLONE_NEWUSER."""
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE, DETACH = 1, 32, 0x4000, 1 << 18, 2
"""mount's flags."""


def weights() -> dict[str, float]:
    return {"full": 4.0, "read-only": 1.0, "file-size": 1.0, "descriptors": 1.0, "streams": 1.0}


def run(job: Job) -> None:
    made = commands(job.seeds, job.folder / "made")
    place = job.folder / "disk"
    place.mkdir()
    if job.target in ("full", "read-only"):
        own_mounts()
    {"full": full, "read-only": read_only, "file-size": file_size, "descriptors": few_descriptors, "streams": streams}[
        job.target
    ](job, made, place)


def turns(job: Job, made: dict[str, Command]) -> Iterator[tuple[str, Command]]:
    """Runs the commands repeatedly until the time is over, all of them at least once if there is time."""
    while True:
        names = list(made)
        job.rng(job.count.runs).shuffle(names)
        for name in names:
            if job.over():
                return
            yield name, made[name]
            job.count.runs += 1


def go(job: Job, what: Command, place: Path, before: Callable[[], object] = lambda: None) -> Ended:
    def enter() -> None:
        os.chdir(place)
        before()

    return run_child(command(words(what, place)), job.folder / "out.txt", seconds=SECONDS, before=enter)


def full(job: Job, made: dict[str, Command], place: Path) -> None:
    """Tries disk sizes from zero to the size that the command needs, so that each of its files meets the end of the
    disk."""
    sizes: dict[str, int] = {}
    rng = job.rng("sizes")
    for name, what in turns(job, made):
        if name not in sizes:
            with disk(place, "size=1g"):
                code, output = load(what, place)
                if code != 0:
                    job.find("other", f"{name}: cannot be run at all: exit code {code}: {message(output)}")
                sizes[name] = used(place)
        options = f"size={PAGE * rng.randint(1, 2 + sizes[name] // PAGE)}"
        if rng.random() < 0.15:
            options = f"size=1g,nr_inodes={rng.randint(2, 12)}"
        with disk(place, options):
            ended = go(job, what, place)
            if (
                judge(job, f"{name} ({options})", ended, CODES, place)
                and ended.code
                and not CAUSES.search(ended.output)
            ):
                job.find("other", f"{name} ({options}): the message does not say why: {message(ended.output)}")


def read_only(job: Job, made: dict[str, Command], place: Path) -> None:
    with disk(place, "size=16m"):
        mount("tmpfs", place, REMOUNT | READ_ONLY, "")
        for name, what in turns(job, made):
            ended = go(job, what, place)
            writes = name not in ("test", "time")
            if (
                judge(job, name, ended, (1, 2) if writes else (0, 1), place)
                and ended.code
                and not CAUSES.search(ended.output)
            ):
                job.find("other", f"{name}: the message does not say why: {message(ended.output)}")


def file_size(job: Job, made: dict[str, Command], place: Path) -> None:
    """Runs commands with a limit of file sizes (`ulimit -f`)."""
    rng = job.rng("sizes")
    for name, what in turns(job, made):
        empty(place)
        limit = int(2 ** rng.uniform(6, 19))
        read, write = os.pipe()  # its output must not go to a file, whose size would be limited as well
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
        ended = go(job, what, place, partial(_limit_files, limit, write))
        os.close(write)
        with open(read, errors="replace") as output:
            ended.output += output.read()
        judge(job, f"{name} (files of {limit} bytes)", ended, CODES, place)


def _limit_files(size: int, output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def few_descriptors(job: Job, made: dict[str, Command], place: Path) -> None:
    """Runs commands with a limit of open files (`ulimit -n`)."""
    rng = job.rng("limits")
    for name, what in turns(job, made):
        empty(place)
        limit = rng.randint(5, 24)
        ended = go(job, what, place, partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit)))
        judge(job, f"{name} ({limit} descriptors)", ended, CODES, place)


def streams(job: Job, made: dict[str, Command], place: Path) -> None:
    """Runs commands with stdout, stderr or both full or closed. A training run must save its weights nevertheless."""
    rng = job.rng("streams")
    for name, what in turns(job, made):
        empty(place)
        numbers, closed = rng.choice([(1,), (2,), (1, 2)]), rng.random() < 0.4

        def redirect(numbers: tuple[int, ...] = numbers, closed: bool = closed) -> None:
            for number in numbers:
                if closed:
                    os.close(number)
                else:
                    os.dup2(os.open("/dev/full", os.O_WRONLY), number)

        ended = go(job, what, place, redirect)
        which = f"{name} ({'and '.join(['stdout', 'stderr'][number - 1] + ' ' for number in numbers)}{'closed' if closed else 'full'})"
        judge(job, which, ended, CODES, place)
        if what.trains and not check_snapshots(job, which, place):
            job.find("other", f"{which}: exit code {ended.code} without a snapshot")


# -- mounts --------------------------------------------------------------------------------------------------------------


def own_mounts() -> None:
    """Gives this process its own mounts, which end with it. raises Skipped if that is not allowed"""
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NAMESPACE | (0 if user == 0 else NEW_USER)):
        raise Skipped(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    mount("none", Path("/"), RECURSIVE | PRIVATE, "")


def mount(kind: str, place: Path, flags: int, options: str) -> None:
    """Mounts a file system. raises Skipped if that is not allowed"""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), os.fsencode(place), kind.encode(), ctypes.c_ulong(flags), options.encode()):
        raise Skipped(f"{place} cannot be mounted: {os.strerror(ctypes.get_errno())}")


@contextmanager
def disk(place: Path, options: str) -> Iterator[None]:
    """A file system in memory for the duration of the block."""
    mount("tmpfs", place, 0, options)
    try:
        yield
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(place), DETACH)


def used(place: Path) -> int:
    """Number of bytes in use of a file system."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
