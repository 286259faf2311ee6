"""tools/torture finds what it is made to find: planted crashes, hangs, tracebacks, hogs, broken snapshots.

With SSLNET_TEST_SLOW=1 a short campaign runs as well, five minutes of everything, and must find nothing.
"""

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TORTURE = ROOT / "tools" / "torture"
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the campaign needs Linux"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def campaign():
    """The package of the command, which is not installed."""
    sys.path.insert(0, str(ROOT / "tools"))
    yield importlib.import_module("campaign")
    sys.path.remove(str(ROOT / "tools"))


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes a job without seed files; the working folder is the test's."""
    from campaign.counts import Count
    from campaign.job import Job

    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()

    def make(part="fuzz", target="fake", seconds=20.0):
        return Job(Count(part, target), None, tmp_path / "job", 7, seconds)

    return make


# -- damage --------------------------------------------------------------------------------------------------------------

TEXT = 'name: "x"\nlayer { name: "c" type: "Convolution" convolution_param { num_output: 3 kernel_size: 5 } }\n'


def test_bytes_are_damaged_the_same_way_by_the_same_seed():
    from campaign.mutate import mutate_bytes

    data = bytes(range(256)) * 4
    one, again = ([mutate_bytes(data, random.Random(seed), [data[::-1]]) for seed in range(200)] for _ in range(2))
    assert one == again
    assert len(set(one)) > 190 and sum(damaged != data for damaged in one) > 190
    assert all(isinstance(mutate_bytes(b"", random.Random(seed)), bytes) for seed in range(50))


def test_texts_are_damaged_the_same_way_by_the_same_seed():
    from campaign.mutate import mutate_text

    one, again = ([mutate_text(TEXT, random.Random(seed), [TEXT], ["ReLU"]) for seed in range(200)] for _ in range(2))
    assert one == again and len(set(one)) > 100
    assert any('type: "ReLU"' in text for text in one)


def test_messages_are_damaged_the_same_way_by_the_same_seed():
    from campaign.mutate import mutate_message
    from google.protobuf import text_format

    from sslnet import sslnet_pb2 as pb

    def damaged(seed):
        message = text_format.Parse(TEXT, pb.NetParameter())
        mutate_message(message, random.Random(seed), ["ReLU"])
        return message.SerializeToString()

    one = [damaged(seed) for seed in range(200)]
    assert one == [damaged(seed) for seed in range(200)] and len(set(one)) > 100


def test_odd_nets_of_every_type_are_prototxts():
    from campaign.nets import TYPES, Odd
    from google.protobuf import text_format

    from sslnet import sslnet_pb2 as pb
    from sslnet.layers import LAYERS

    assert set(TYPES) <= set(LAYERS)
    texts = [Odd(random.Random(seed)).net() for seed in range(80)]
    made = {text_format.Parse(text, pb.NetParameter()).layer[-1].type for text in texts}
    assert {"Convolution", "Pooling"} <= made
    assert texts == [Odd(random.Random(seed)).net() for seed in range(80)]


# -- planted faults in a fake target ---------------------------------------------------------------------------------------


def supervised(job, faults, **limits):
    """Runs inputs of a target that does what `faults` says for their numbers, until all of them are done."""
    from campaign.fuzz import Supervisor
    from campaign.targets import Target

    last = max(faults) + 3

    class Fake(Target):
        SUFFIX = ".bin"

        def make(self, rng):
            return b"input"

        def run(self, path, rng):
            raise AssertionError("one() is replaced")

    def one(job, target, path, number, kept=None):
        path.write_bytes(b"input %d" % number if isinstance(number, int) else b"")
        if kept is not None:
            shutil.copy(path, kept)
        if number in faults:
            faults[number](path)
        if number == last:
            job.seconds = 0
            time.sleep(60)

    job.over = lambda: job.count.runs >= last or job.left() <= 0
    fuzz = importlib.import_module("campaign.fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "one", one)
        Supervisor(job, Fake(None), **limits).run()
    return job.count


def crash(path):
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(path):
    while True:
        pass


def ill(kind):
    def fail(path):
        from campaign.outcome import Bad

        raise Bad(kind, "planted")

    return fail


def test_crashes_hangs_and_tracebacks_are_counted_and_their_inputs_kept(job, tmp_path):
    faults = {2: crash, 4: hang, 6: ill("tracebacks"), 7: ill("memory"), 9: lambda path: sys.exit(3)}
    count = supervised(job(seconds=300.0), faults, cpu_seconds=3.0, wall_seconds=60.0)
    assert {kind: number for kind, number in count.found.items() if number} == {
        "signals": 1,
        "hangs": 1,
        "tracebacks": 2,
        "memory": 1,
    }, "\n".join(count.findings)
    assert count.runs >= 10
    assert (tmp_path / "findings" / "fuzz-fake-2-input.bin").read_bytes() == b"input 2"
    assert "Segmentation fault" in (tmp_path / "findings" / "fuzz-fake-2.txt").read_text()
    assert "seed 7" in (tmp_path / "findings" / "fuzz-fake-4.txt").read_text()
    assert (tmp_path / "findings" / "fuzz-fake-6-input.bin.6").read_bytes() == b"input 6"


def run_one(job, run):
    """What `one` says of a target whose `run` this is."""
    from campaign import fuzz
    from campaign.job import empty
    from campaign.outcome import Bad
    from campaign.targets import Target

    class Fake(Target):
        def make(self, rng):
            return rng.randbytes(4)

    Fake.run = run
    empty(job.folder)
    try:
        fuzz.one(job, Fake(None), job.folder / "input", 1)
    except Bad as bad:
        return bad.kind
    return ""


def test_an_input_is_judged_by_what_it_does(job, monkeypatch):
    from campaign import fuzz

    from sslnet.errors import DataError

    class Red(DataError):
        def __str__(self):
            return "\x1b[31m"

    def raising(error):
        def run(target, path, rng):
            def go():
                raise error

            target.call(go)

        return run

    one = job()
    assert run_one(one, raising(DataError("as it should be"))) == ""
    assert run_one(one, raising(KeyError("x"))) == "tracebacks"
    assert run_one(one, raising(DataError("red \x1b[31m letters"))) == "", "errors escape what they quote"
    assert run_one(one, raising(Red("red"))) == "other"
    assert run_one(one, raising(MemoryError())) == "memory"
    assert run_one(one, lambda target, path, rng: path.with_name(".1234abcd-x").touch()) == "stray"
    assert run_one(one, lambda target, path, rng: target.command("upgrade", path, path)) == ""
    monkeypatch.setattr(fuzz, "MEMORY", 64 << 20)
    assert run_one(one, lambda target, path, rng: bytes(b"x" * (160 << 20)) and None) == "memory"


def test_a_fault_of_a_command_is_told_with_its_place(job, monkeypatch):
    from campaign import outcome

    import sslnet.cli.draw as draw

    def fail(args):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(draw, "run", fail)
    with pytest.raises(outcome.Bad) as caught:
        outcome.command(["draw", "a", "b"])
    assert caught.value.kind == "tracebacks" and "ZeroDivisionError" in caught.value.details


# -- kills -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def training(job, tmp_path):
    """A part that kills, and two folders with the snapshot of one run, told to be at its end."""
    from campaign.kills import Run, Training

    goldens = ROOT / "tests" / "goldens" / "formats"
    for name in ("chain", "reference"):
        (tmp_path / name).mkdir()
        for kind in ("caffemodel", "solverstate"):
            shutil.copy(goldens / f"tiny_binaryproto_iter_20.{kind}", tmp_path / name / f"r_iter_20.{kind}")
        lines = [{"type": "train", "iteration": 1, "loss": 2.5, "seconds": time.time()}, {"type": "run"}]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Training(job("kills"), Run(("max_iter=20",)))


def found(part):
    return {kind: number for kind, number in part.job.count.found.items() if number}


def test_whole_snapshots_and_the_same_end_are_no_finding(training, tmp_path):
    training.check_killed(tmp_path / "chain")
    training.check_ended(tmp_path / "chain", tmp_path / "reference")
    assert found(training) == {}


@pytest.mark.parametrize("kind", ["caffemodel", "solverstate"])
def test_a_broken_snapshot_is_found(kind, training, tmp_path):
    os.truncate(tmp_path / "chain" / f"r_iter_20.{kind}", 700)
    training.check_killed(tmp_path / "chain")
    assert found(training) == {"broken": 1}


def test_a_broken_line_of_metrics_is_found(training, tmp_path):
    with (tmp_path / "chain" / "metrics.jsonl").open("a") as file:
        file.write('{"type": "train", "iter\n{"being wri')
    training.check_killed(tmp_path / "chain")
    assert found(training) == {"broken": 1}


def test_another_end_is_found(training, tmp_path):
    from sslnet.solver.snapshot import read_state, write_state

    path = tmp_path / "chain" / "r_iter_20.solverstate"
    state = read_state(path)
    state.history[0] += 1e-3
    write_state(path, state)
    (tmp_path / "chain" / "r.lock").touch()
    (tmp_path / "chain" / "metrics.jsonl").write_text('{"type": "train", "iteration": 1, "loss": 2.75}\n')
    training.check_ended(tmp_path / "chain", tmp_path / "reference")
    assert found(training) == {"differing": 2, "stray": 1}


# -- children, signals, soak -------------------------------------------------------------------------------------------------


def test_children_tell_how_they_ended(tmp_path):
    from campaign.children import Child, run

    def fail():
        raise KeyError("planted")

    out = tmp_path / "out.txt"
    assert run(lambda: print("hello") or 5, out).code == 5 and "hello" in out.read_text()
    assert run(fail, out).code == 99 and "KeyError: 'planted'" in out.read_text()
    assert run(lambda: crash(None), out).code == -signal.SIGSEGV
    assert run(lambda: time.sleep(30), out, seconds=0.2).code is None
    child = Child(lambda: time.sleep(30), out)
    child.wait(0.2)
    child.send(signal.SIGTERM)
    assert child.end(10).code == -signal.SIGTERM


def test_ends_of_commands_are_judged(job, tmp_path):
    from campaign.children import Ended
    from campaign.commands import judge

    (tmp_path / "out").mkdir()
    one = job("signals")
    assert judge(one, "c", Ended(130, "interrupted", 1), (0, 130), tmp_path / "out")
    (tmp_path / "out" / ".d2f0-x.h5").touch()
    assert not judge(one, "c", Ended(0, "", 1), (0,), tmp_path / "out")
    assert not judge(one, "c", Ended(-11, "Segmentation fault", 1), (0,))
    assert not judge(one, "c", Ended(None, "", 1), (0,))
    assert not judge(one, "c", Ended(1, "error: this is a bug in sslnet: X", 1), (0, 1))
    assert not judge(one, "c", Ended(3, "", 1), (0, 1))
    assert {kind for kind, number in one.count.found.items() if number} == {
        "stray", "signals", "hangs", "tracebacks", "other",
    }  # fmt: skip


def test_growth_is_seen():
    from campaign.soak import grown

    steady = [[100 << 20, 8, 3]] * 40
    assert grown(steady) == ""
    assert "memory" in grown([[(100 + number) << 20, 8, 3] for number in range(40)])
    assert "descriptors" in grown([[100 << 20, 8 + number, 3] for number in range(40)])
    assert grown([[(100 + 50 * number) << 20, 8, 3] for number in range(5)]) == ""  # too few to tell


# -- table, record, page -----------------------------------------------------------------------------------------------------


def count_of(target, seed, runs, **found):
    from campaign.counts import Count

    count = Count("fuzz", target, "inputs", runs=runs, seconds=90, seeds=[seed])
    for kind, number in found.items():
        for _ in range(number):
            count.find(kind, "planted")
    return count


def test_the_table_sums_up_a_part():
    from campaign import counts

    skipped = count_of("onnx", 1, 0)
    skipped.skipped = "onnx is not installed"
    rows = [count_of("nets", 1, 1000, signals=2), count_of("lmdb", 1, 234), skipped]
    text = counts.text(rows)
    assert "fuzz, all     1,234 inputs" in text and "onnx is not installed" in text
    assert "| fuzz/nets | 1,000 inputs | 1.5 | 0 | 0 | 2 | 0 | 0 | 0 | 0 | 0 |" in counts.markdown(rows)


def test_the_record_adds_up_runs_of_the_same_sources(tmp_path):
    from campaign.record import Record

    def run(seed, runs, path=tmp_path / "r.json", **found):
        record = Record(path)
        record.put(count_of("nets", seed, runs, **found))
        record.save()
        return {row["target"]: row for row in json.loads(path.read_text())["rows"]}

    assert run(1, 100, hangs=1)["nets"]["runs"] == 100
    assert run(2, 50)["nets"]["runs"] == 150
    assert run(2, 70)["nets"]["runs"] == 70  # the same seed once more: the same inputs
    content = json.loads((tmp_path / "r.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps(content | {"sources": "others"}))
    assert run(3, 5)["nets"] | {"findings": []} == count_of("nets", 3, 5).as_dict()
    (tmp_path / "r.json").write_text('{"rows": 3}')
    with pytest.raises(SystemExit, match="not a file that tools/torture wrote"):
        Record(tmp_path / "r.json")


def test_the_page_is_written_between_its_markers(tmp_path):
    from campaign import page
    from campaign.record import Record

    record = Record(None)
    record.put(count_of("nets", 4, 1000))
    path = tmp_path / "page.md"
    path.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.write(path, record)
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "seed 4" in text and "| fuzz/nets | 1,000 inputs |" in text
    path.write_text("mine\n")
    with pytest.raises(SystemExit, match="must stand in it"):
        page.write(path, record)
    assert path.read_text() == "mine\n"
    assert page.BEGIN in page.PAGE.read_text() and page.END in page.PAGE.read_text()


def test_time_is_shared_out(monkeypatch):
    from campaign import command

    options = command.parse(["--minutes", "10", "--jobs", "2", "--only", "kills,fuzz"])
    tasks = command.tasks(options)
    assert {task.part for task in tasks} == {"kills", "fuzz"}
    total = 0.0
    while tasks:  # each takes twice what it was given: the others get less
        seconds = command.share(tasks.pop(0), tasks, 600 - total, 1, [])
        total += 2 * seconds
    assert total == pytest.approx(600, rel=0.05)
    (one,) = command.tasks(command.parse(["--targets", "idx"]))
    assert command.share(one, [], 120, 2, []) == 120
    assert command.share(one, [one], 120, 2, [20.0]) == 110
    for wrong in (["--only", "kil"], ["--targets", "x"], ["--minutes", "0"], ["--repeat", "x/1"]):
        with pytest.raises(SystemExit):
            command.parse(wrong)


# -- the command -------------------------------------------------------------------------------------------------------------


def test_interrupt_shows_and_records_what_was_done(tmp_path):
    record = tmp_path / "record.json"
    arguments = ["--only", "fuzz", "--targets", "idx", "--minutes", "4", "--jobs", "1", "--record", record]
    run = subprocess.Popen(
        [sys.executable, TORTURE, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (record.exists() and '"runs": 0' not in record.read_text()):
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        out, errors = run.communicate(timeout=100)
    finally:
        run.kill()
    assert run.returncode == 130, errors
    assert "fuzz/idx" in out and "interrupted" in errors
    assert json.loads(record.read_text())["rows"][0]["runs"] > 0
    work = Path(out.split("work in ")[1].split(";")[0])
    assert not work.exists() or (work / "findings").exists()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not os.environ.get("SSLNET_TEST_SLOW"), reason="five minutes; SSLNET_TEST_SLOW=1 runs it")
def test_a_short_campaign_finds_nothing(tmp_path):
    record = tmp_path / "record.json"
    arguments = ["--minutes", "5", "--seed", "1", "--work", tmp_path / "work", "--record", record]
    run = subprocess.run([sys.executable, TORTURE, *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    rows = json.loads(record.read_text())["rows"]
    for part in ("kills", "fuzz", "disk", "signals", "data", "threads", "soak"):
        assert sum(row["runs"] for row in rows if row["part"] == part) or part == "disk", run.stdout
