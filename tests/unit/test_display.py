"""The screen, fed with Snakemake's records."""

import codecs
import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

import snakemake_logger_plugin_saemake as plugin
from saemake.base import interrupts, progress
from saemake.base.telling import Told
from saemake.commands import status
from saemake.jobs import board, display, runs, screen
from saemake.paths.folders import files_for

TRAIN = "train 6 SAEs demo/L3/top_k/1k (k_2, k_4): 500,224 tokens in 977 steps of 512"
JUDGE = "evaluate demo/L3/matryoshka_batch_top_k/1k by dictionary_learning on 120 documents"
TRAINED = {
    "label": "train demo/L3/top_k/1k (6 SAEs)",
    "unit": "tok",
    "done": 62_000,
    "total": 100_000,
    "rate": 118_234.0,
    "figures": {"l0": [2, 64.2], "explained": [0.71, 0.934]},
}
JUDGED = {
    "label": "dictionary_learning",
    "unit": "tok",
    "done": 10,
    "total": 40,
    "rate": 0.5,
    "figures": {"l0": [31.7, 31.7], "recovered": [0.97, 0.98]},
}
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def record(event=None, level=logging.INFO, msg="None", **more):
    content = {"levelno": level, "levelname": logging.getLevelName(level), "msg": msg, **more}
    made = logging.makeLogRecord(content)
    if event is not None:
        made.event = event
    return made


def starts(number, message, log):
    return record(LogEvent.JOB_INFO, jobid=number, rule_msg=message, rule_name="x", log=[log])


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """The run's folder; what a run sets in this process ends with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "BUILDS", "the suite of demo")
    monkeypatch.setattr(runs, "PLACE", "")
    monkeypatch.setenv(progress.SHOWN, "")
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "0")


class Feed:
    """A run of two jobs, shown by a display."""

    def __init__(self, make):
        self.run = runs.Run()
        self.shown = make(self.run)

    def __call__(self, *records):
        for each in records:
            self.run.see(each)
            self.shown.handle(each)

    def begins(self):
        self(
            record(msg="Building DAG of jobs..."),
            record(LogEvent.RUN_INFO, msg="Job stats:\n...", stats={"train": 1, "total": 2}),
            starts(1, TRAIN, "logs/a.log"),
            starts(2, JUDGE, "logs/b.log"),
        )

    def ends(self, number):
        self(
            record(LogEvent.JOB_FINISHED, job_id=number),
            record(LogEvent.PROGRESS, done=number, total=2),
        )

    def fails(self, number, log, how="returned non-zero exit status 1."):
        said = f"CalledProcessError in file x.smk, line 1:\nCommand '...' {how}"
        self(
            record(LogEvent.ERROR, logging.ERROR, said),
            record(LogEvent.JOB_ERROR, logging.ERROR, "Error", jobid=number, log=[log]),
        )

    def gives_up(self):
        said = f"WorkflowError:\n{screen.NOT_ALL}."
        self(record(LogEvent.ERROR, logging.ERROR, said))


def tell(log, content):
    """As the process of a job tells; living while the result is referred to."""
    told = Told(runs.RUNNING, progress.KIND)
    told.path = told.path.with_name(f"job-{log.replace('/', '_')}.json")
    told.write({"log": log, "started": time.time(), "pid": 1, **content})
    return told


@pytest.fixture
def lines():
    return []


@pytest.fixture
def feed(lines):
    return Feed(lambda run: display.Plain(run, lines.append))


def without_times(lines):
    return [re.sub(r"\d\d:\d\d:\d\d |\d+ s\b", "", line) for line in lines]


def test_outside_a_terminal_an_event_is_a_line(feed, lines):
    feed.begins()
    feed.ends(1)
    feed.ends(2)
    feed.shown.close()
    feed.shown.close()
    assert without_times(lines) == [
        "Building the suite of demo: 2 jobs",
        f"Job 1: {TRAIN}",
        f"Job 2: {JUDGE}",
        "Job 1 done: train demo/L3/top_k/1k (6 SAEs),  (1 of 2)",
        "Job 2 done: evaluate demo/L3/matryoshka_batch_top_k/1k by dictionary_learning,  (2 of 2)",
        "Built the suite of demo: 2 jobs, ",
    ]


def test_outside_a_terminal_long_jobs_say_how_far_they_are(feed, lines):
    feed.begins()
    held = tell("logs/a.log", TRAINED)
    feed.shown.tick()
    assert len(lines) == 3  # not yet
    feed.run.jobs[1].started -= 61
    feed.run.jobs[2].started -= 61  # tells nothing
    feed.shown.tick()
    feed.shown.tick()
    assert without_times(lines[3:]) == [
        "Job 1: train demo/L3/top_k/1k (6 SAEs): 62 %, 118k tok/s,  left, L0 2..64,"
        " variance explained 0.71..0.93"
    ]
    held.close()
    feed.shown.close()


def test_nothing_to_do_is_said_and_no_more(feed, lines):
    feed(record(msg="Building DAG of jobs..."), record(msg="Nothing to be done (all is there)."))
    feed.shown.close()
    feed.shown.close()
    assert lines == ["Nothing to be done (all is there)."]


def test_of_a_failure_our_line_is_the_last(feed, lines):
    feed.begins()
    tell("logs/a.log", {"fault": "demo/L3/top_k/1k/k_2: the loss is not finite"}).leave()
    feed.fails(1, "logs/a.log")
    feed.ends(2)
    feed.gives_up()
    feed.shown.close()
    assert lines[3] == "saemake: job 1 failed; its log is logs/a.log"
    assert lines[-1] == (
        "saemake: demo/L3/top_k/1k/k_2: the loss is not finite; its log is logs/a.log"
    )
    assert lines[-2].startswith("2 of 2 jobs done, 1 failed, ")
    assert not any("Error" in line for line in lines)


CAUSE = "model 'a/b' cannot be reached (no route): type `hf download a/b`"


def said_of_a_failure(lines):
    return [line for line in lines if CAUSE in line]


def test_a_cause_that_ends_the_run_is_said_once(feed, lines, monkeypatch):
    monkeypatch.setenv(progress.SHOWN, "1")
    feed.begins()
    feed.ends(2)
    tell("logs/a.log", {"fault": CAUSE}).leave()
    feed.fails(1, "logs/a.log")
    feed.gives_up()
    feed.shown.close()
    assert said_of_a_failure(lines) == [lines[-1]]
    assert "saemake: job 1 failed; its log is logs/a.log" in lines


def test_a_cause_is_said_at_once_if_the_run_goes_on(feed, lines, monkeypatch):
    monkeypatch.setenv(progress.SHOWN, "1")
    feed.begins()
    tell("logs/a.log", {"fault": CAUSE}).leave()
    feed.fails(1, "logs/a.log")
    assert lines[3:] == [f"saemake: {CAUSE}", "saemake: job 1 failed; its log is logs/a.log"]
    tell("logs/b.log", {"fault": "its LM is damaged"}).leave()
    feed.fails(2, "logs/b.log")
    feed.gives_up()
    feed.shown.close()
    # The last line says the first cause only.
    assert "saemake: its LM is damaged" in lines
    assert CAUSE in lines[-1]


def test_a_killed_job_and_another_failure(feed, lines):
    feed.begins()
    feed.fails(1, "logs/a.log", "died with <Signals.SIGKILL: 9>.")
    feed.fails(2, "logs/b.log")
    feed.gives_up()
    feed.shown.close()
    assert "was ended by SIGKILL" in lines[3]
    assert lines[-1] == (
        "saemake: 2 jobs failed; the first: train demo/L3/top_k/1k (6 SAEs) failed; its log is"
        " logs/a.log"
    )


def test_an_error_of_snakemake_stays(feed, lines):
    feed(record(LogEvent.ERROR, logging.ERROR, "MissingInputException in rule x"))
    feed.shown.close()
    assert lines == ["MissingInputException in rule x"]


def test_of_an_interrupt_between_jobs_our_line_is_the_last(feed, lines):
    feed.begins()
    feed(record(msg=f"{screen.ON_REQUEST}, this might take some time."))
    feed.gives_up()
    feed.shown.close()
    assert lines[-1] == interrupts.MESSAGE
    assert lines.count(interrupts.MESSAGE) == 1


class Pty:
    """This process's stderr as a terminal, and what was written to it."""

    def __init__(self, columns):
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.resize(columns)
        self.before = os.dup(2)
        os.dup2(slave, 2)
        os.close(slave)
        self.text = ""
        # A read may end within a character.
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def resize(self, columns):
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def read(self):
        while True:
            try:
                self.text += self.decoder.decode(os.read(self.master, 65536))
            except BlockingIOError:
                return self.text.replace("\r\n", "\n")

    def lines(self):
        return [ESCAPES.sub("", line).lstrip("\r") for line in self.read().split("\n")]

    def close(self):
        os.dup2(self.before, 2)
        os.close(self.before)
        os.close(self.master)


@pytest.fixture
def terminal():
    made = []

    def make(columns):
        made.append(Pty(columns))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("columns", [12, 30, 60, 80, 120, 200])
def test_no_line_is_longer_than_the_terminal(terminal, columns):
    on = terminal(columns)
    feed = Feed(lambda run: display.Live(run, colour=True))
    feed.begins()
    held = [tell("logs/a.log", TRAINED), tell("logs/b.log", JUDGED)]
    feed.shown.tick()
    print("saemake: a word of a job " * 20, file=open(2, "w", closefd=False), flush=True)  # noqa: SIM115
    feed.ends(1)
    tell("logs/b.log", {"fault": "its LM is damaged " * 20}).leave()
    feed.fails(2, "logs/b.log")
    feed.gives_up()
    feed.shown.close()
    lines = on.lines()
    assert max(map(len, lines)) <= columns, lines
    said = " ".join(" ".join(lines).split())
    if columns >= 30:
        assert "saemake: a word of a job" in said
    if columns >= 80:
        assert "done train demo/L3/top_k/1k (6 SAEs)," in said
        for shown in ("118k", "62 %", "0.71..0.93", "2..64", " 32 ", "0.97..0.98"):
            assert shown in said, shown
    assert re.sub(r"\s", "", lines[-2]).endswith("logs/b.log"[-8:])
    assert held


def test_what_training_knows_is_not_called_loss_recovered():
    told = {"a": runs.Pass.read({**TRAINED, "log": "a"})}
    job = runs.Job(1, "train x", "", "a", time.time())
    shown = runs.Shown("x", 1, time.time(), 0, 1, 0, [job])
    (title, row) = board.lines([shown], told, board.Look(120))[1:]
    assert row.split()[-2:] == ["2..64", "0.71..0.93"]
    assert title.index("explained") + len("explained") == len(row)


def test_where_many_targets_are_built_the_counts_have_room():
    shown = runs.Shown("results/demo/L3/top_k/1k/metrics.json, " * 3, 1, time.time(), 3, 9, 1, [])
    (line,) = board.lines([shown], {}, board.Look(79))
    assert len(line) <= 79
    assert line.startswith("Building results/demo/L3/top_k/1k/metri")
    assert line.endswith("…: 3 of 9 jobs done, 1 failed, 0 s")


def test_a_terminal_that_becomes_narrower_is_followed(terminal):
    on = terminal(120)
    feed = Feed(lambda run: display.Live(run, colour=False))
    feed.begins()
    on.read()
    on.text, widths = "", feed.shown.terminal.widths
    on.resize(60)
    feed.shown.tick()
    lines = on.lines()
    assert max(map(len, lines)) <= 60
    # Of the five lines of before, four are longer than 60 cells: each takes two rows now.
    before = [cells for cells in widths if cells > 60]
    assert f"\x1b[{len(widths) + len(before)}A" in on.text
    assert before
    feed.shown.close()


def test_what_others_write_is_shown_above_the_table_once(terminal):
    on = terminal(80)
    feed = Feed(lambda run: display.Live(run, colour=False))
    feed.begins()
    child = "import sys; sys.stderr.write('10%\\r50%\\r100%\\n'); sys.stderr.write('a part')"
    subprocess.run([sys.executable, "-c", child], check=True)
    time.sleep(0.2)
    feed.shown.close()
    lines = on.lines()
    assert lines.count("100%") == 1
    assert not any("50%" in line for line in lines)
    assert "a part" in lines


def test_a_traceback_is_left_out_if_ctrl_c_caused_it(terminal):
    on = terminal(80)
    feed = Feed(lambda run: display.Live(run, colour=False))
    feed.begins()
    for how in ("KeyboardInterrupt", "ValueError('x')"):
        child = f"def f():\n    raise {how}\nf()"
        subprocess.run([sys.executable, "-c", child], check=False)
    time.sleep(0.2)
    feed.shown.close()
    said = "\n".join(on.lines())
    assert "KeyboardInterrupt" not in said
    assert said.count("Traceback") == 1
    assert "ValueError: x" in said


def test_the_terminal_is_given_back(terminal):
    on = terminal(80)
    before = os.fstat(2)
    feed = Feed(lambda run: display.Live(run, colour=False))
    assert os.fstat(2).st_ino != before.st_ino
    feed.shown.close()
    assert (os.fstat(2).st_ino, os.isatty(2)) == (before.st_ino, True)
    assert on.read() == ""


def test_a_terminal_that_is_gone_ends_the_screen_only(terminal):
    on = terminal(80)
    feed = Feed(lambda run: display.Live(run, colour=False))
    feed.begins()
    os.close(on.master)
    on.master = os.open(os.devnull, os.O_RDONLY)
    feed.shown.tick()
    # More than a pipe holds: a job would wait for ever.
    words = "x" * 1000
    child = f"import sys\nfor _ in range(200): print({words!r}, file=sys.stderr)"
    subprocess.run([sys.executable, "-c", child], check=True, timeout=30)
    feed.ends(1)
    feed.ends(2)
    feed.shown.close()
    assert feed.run.done == 2


def settings(**more):
    names = ("printshellcmds", "debug_dag", "verbose", "show_failed_logs", "stdout", "dryrun")
    content = {**dict.fromkeys(names, False), "nocolor": False}
    content["quiet"] = {Quietness.HOST, Quietness.REASON}
    return SimpleNamespace(**{**content, **more})


@pytest.mark.parametrize(
    "asked",
    [
        {"dryrun": True},
        {"verbose": True},
        {"printshellcmds": True},
        {"show_failed_logs": True},
        {"quiet": {Quietness.ALL}},
        {"quiet": {Quietness.RULES}},
        {"quiet": {Quietness.HOST}},
    ],
    ids=str,
)
def test_where_snakemakes_lines_are_asked_for_it_shows_them(asked):
    handler = plugin.LogHandler(settings(**asked), plugin.LogHandlerSettings())
    assert type(handler.shown).__name__ == "ColorizingTextHandler"
    assert progress.SHOWN not in os.environ
    handler.close()


def test_the_flag_turns_it_off_and_the_run_is_known_all_the_same(capfd):
    handler = plugin.LogHandler(settings(), plugin.LogHandlerSettings(off=True))
    assert progress.SHOWN not in os.environ
    for each in (
        record(LogEvent.RUN_INFO, msg="Job stats:", stats={"total": 2}),
        record(msg="Select jobs to execute..."),
    ):
        handler.handle(each)
    assert runs.shown()[0].total == 2
    handler.close()
    assert runs.shown() == []
    assert "Select jobs to execute..." in capfd.readouterr().err


def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    terminal(80)
    monkeypatch.setattr(sys, "stderr", open(2, "w", closefd=False))  # noqa: SIM115
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display.choose(runs.Run(), False), display.Plain)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    live = display.choose(runs.Run(), False)
    assert isinstance(live, display.Live)
    assert not live.colour
    live.close()


def test_a_record_that_cannot_be_shown_stops_nothing(monkeypatch):
    handler = plugin.LogHandler(settings(), plugin.LogHandlerSettings())
    monkeypatch.setattr(handler.shown, "write", lambda *words: 1 / 0)
    handler.handle(record(LogEvent.RUN_INFO, stats={"total": 1}))
    handler.handle(record(LogEvent.JOB_INFO, jobid=None, rule_msg=None, log=None))
    handler.close()


def test_status_shows_living_runs_and_jobs(capsys, monkeypatch):
    assert status.lines(board.Look(120)) == ["nothing is running in this folder"]
    feed = Feed(lambda run: display.Plain(run, lambda line: None))
    feed.begins()
    held = [tell("logs/a.log", TRAINED), tell("logs/c.log", {**JUDGED, "label": "by hand"})]
    lines = status.lines(board.Look(120))
    assert lines[0].startswith(
        f"Process {os.getpid()}: Building the suite of demo: 0 of 2 jobs done, "
    )
    assert lines[2].startswith("train demo/L3/top_k/1k (6 SAEs)")
    assert "62 %" in lines[2]
    assert lines[3].split()[-1] == "0:00"
    assert lines[-3] == "Jobs of no known run"
    assert lines[-1].startswith("by hand")
    assert max(map(len, lines)) <= 120
    feed.shown.close()
    for each in held:
        each.close()
    assert status.lines(board.Look(120)) == ["nothing is running in this folder"]


def test_status_imports_nothing_slow():
    code = "import sys, saemake.commands.status; print([m for m in sys.modules if m == 'torch'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("message", "label"),
    [
        (TRAIN, "train demo/L3/top_k/1k (6 SAEs)"),
        ("link 1 SAE demo/L3/top_k/1k (k_2) from the store", "link demo/L3/top_k/1k/k_2"),
        (
            f"{TRAIN}; on one run of the LM with demo/L3/gated/1k: 12 SAEs in all",
            "train demo/L3/top_k/1k (6 of 12 SAEs)",
        ),
        (JUDGE, "evaluate demo/L3/matryoshka_batch_top_k/1k by dictionary_learning"),
        ("tokenise 1,000 tokens of x (train) for demo", "tokenise 1,000 tokens of x"),
        ("look at the latents of a/1k on up to 9 tokens", "look at the latents of a/1k"),
        ("draw f of demo L3; replaces y", "draw f of demo L3"),
        ("gather the sweep demo/L3/top_k/1k", "gather the sweep demo/L3/top_k/1k"),
    ],
)
def test_the_label_of_a_job_is_its_message_without_details(message, label):
    assert runs.short(message) == label


@pytest.mark.parametrize(
    ("seconds", "words", "clock"),
    [
        (0.4, "0 s", "0:00"),
        (59.6, "1 min 0 s", "1:00"),
        (3725, "1 h 2 min", "1h02"),
        (400_000, "111 h 6 min", "111h"),
    ],
)
def test_times(seconds, words, clock):
    assert (runs.duration(seconds), board.clock(seconds)) == (words, clock)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.5, "0.50"), (950, "950"), (1234, "1.2k"), (9960, "10k"), (118_234, "118k"), (2e6, "2.0M")],
)
def test_counts(value, words):
    assert board.counted(value) == words


def test_many_targets_are_counted(config):
    runs.set_targets(config, ["all"])
    assert runs.BUILDS == "the suite of demo"
    runs.set_targets(config, ["a", "b"])
    assert runs.BUILDS == "a, b"
    runs.set_targets(config, list("abcd"))
    assert runs.BUILDS == "4 targets"


@pytest.mark.parametrize(
    ("folder", "named", "place"),
    [
        ("demo", "demo", "demo/L3"),
        ("demo/L3", "demo", "demo/L3"),
        ("demo/L1", "demo/L1", "demo/L1"),
    ],
)
def test_a_model_or_layer_that_is_built_is_named(config, folder, named, place):
    """The suite of the demo is of one layer, and has the model's name."""
    runs.set_targets(config, files_for(config, f"results/{folder}"))
    assert (named, place) == (runs.BUILDS, runs.PLACE)


@pytest.mark.parametrize(
    ("targets", "place"),
    [
        (["all"], "demo/L3"),
        (
            ["results/demo/L3/top_k/1k/metrics.json", "results/demo/L3/top_k/1k/k_2/ae.pt"],
            "demo/L3",
        ),
        (["saelens/demo/L3/top_k/1k/k_2/cfg.json", "results/demo/L1/top_k/1k/k_2/ae.pt"], "demo"),
        (["results/demo/L3/top_k/1k/k_2/ae.pt", "results/demo/model.json"], "demo"),
        (["results/demo/L3/top_k/1k/k_2/ae.pt", "results/gemma-2-2b/L3/x"], ""),
        (["results/demo/L3/top_k/1k/k_2/ae.pt", "results/figures/mine.pdf"], ""),
    ],
)
def test_the_model_and_layer_of_all_targets(config, targets, place):
    runs.set_targets(config, targets)
    assert place == runs.PLACE


@pytest.mark.parametrize(
    ("label", "place", "name"),
    [
        ("train demo/L3/top_k/1k (6 SAEs)", "demo/L3", "train top_k/1k (6 SAEs)"),
        ("train demo/L3/top_k/1k (6 SAEs)", "demo", "train L3/top_k/1k (6 SAEs)"),
        ("train demo/L3/top_k/1k (6 SAEs)", "", "train demo/L3/top_k/1k (6 SAEs)"),
        ("evaluate baselines of demo/L3 by sae_bench_core", "demo/L3", "eval baselines by core"),
        ("join the evaluations of demo/L3/top_k/1k", "demo/L3", "join top_k/1k"),
        ("draw overview of demo L3", "demo/L3", "draw overview"),
        ("tokenise 1,000 tokens of x", "demo/L3", "tokenise 1,000 tokens"),
        ("draw overview of demo L3", "demo", "draw overview of L3"),
        ("set up x of my-demo/L3", "demo/L3", "set up x of my-demo/L3"),
    ],
)
def test_a_row_leaves_out_the_model_of_all_jobs(label, place, name):
    assert board.brief(label, place) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("train top_k/1k (6 SAEs)", "train top_k/1k (6 SAEs)"),
        ("eval batch_top_k/1k by dictionary_learning", "eval batch_top_k/1k by dictio…"),
        ("train my-model/L12/standard_new/16k (6 SAEs)", "train my-model/…new/16k (6 SAEs)"),
    ],
)
def test_a_long_name_is_cut(name, shown):
    assert board.fitted(name, len(shown), board.Look(79)) == shown


@pytest.mark.parametrize("width", [79, 119])
def test_columns_do_not_move(width):
    """Whatever the jobs tell, each job has one line, and each column its place."""
    job = runs.Job(1, f"evaluate {'x' * 60} by dictionary_learning", "", "a", time.time() - 4000)
    shown = runs.Shown("x", 1, time.time(), 0, 1, 0, [job])
    extreme = {"l0": [1234, 16384], "explained": [-2.62, 0.13], "recovered": [-1234, -0.04]}
    titles = set()
    for told in (
        {},
        TRAINED,
        JUDGED,
        {**TRAINED, "figures": extreme, "rate": 0.001, "total": 10**9},
        {**TRAINED, "done": 100_000},
    ):
        passes = {"a": runs.Pass.read({**told, "log": "a"})}
        title, row = board.lines([shown], passes, board.Look(width))[1:]
        titles.add(title.split("L0")[0])
        assert max(len(title), len(row)) <= width
        assert "1h06" in row
        if "total" in told:
            assert row[title.index("L0") + 1] != " "
    assert len(titles) == 1


def test_the_heading_tells_what_the_rows_tell():
    jobs = [runs.Job(n, "x", "", log, time.time()) for n, log in enumerate("ab")]
    passes = {log: runs.Pass.read(told) for log, told in zip("ab", (TRAINED, JUDGED), strict=True)}

    def heading(jobs):
        shown = runs.Shown("x", 1, time.time(), 0, 1, 0, jobs)
        told = {job.log: passes[job.log] for job in jobs}
        return board.lines([shown], told, board.Look(79))[1].split()[-1]

    headings = [heading(jobs[:1]), heading(jobs[1:]), heading(jobs)]
    assert headings == ["explained", "recovered", "expl/recov"]


def test_a_job_that_is_through_its_text_is_writing():
    told = runs.Pass.read({**TRAINED, "done": 100_000, "log": "a"})
    assert board.words(told).startswith("100 %, writing, L0 2..64")
    job = runs.Job(1, "train x", "", "a", time.time())
    shown = runs.Shown("x", 1, time.time(), 0, 1, 0, [job])
    row = board.lines([shown], {"a": told}, board.Look(79))[-1]
    assert row.split()[3:6] == ["100", "%", "writing"]


def test_a_row_keeps_its_progress_when_the_jobs_process_has_ended(terminal):
    terminal(80)
    feed = Feed(lambda run: display.Live(run, colour=False))
    feed.begins()
    held = tell("logs/a.log", {**TRAINED, "done": 100_000})
    feed.shown.tick()
    held.close()
    feed.shown.tick()
    assert "100 % writing" in feed.shown.terminal.lines[3]
    feed.ends(1)
    feed.shown.tick()
    assert feed.shown.known == {}
    feed.shown.close()


def test_the_report_that_was_built_is_named_last(feed, lines):
    feed.begins()
    report = "results/demo/L3/report.html"
    written = {"jobid": 3, "rule_msg": "write the report", "log": ["logs/c.log"]}
    feed(record(LogEvent.JOB_INFO, output=["results/x.json", report], **written))
    feed.ends(1)
    feed.ends(2)
    feed.shown.close()
    assert lines[-2].startswith("Built the suite of demo: 2 jobs, ")
    assert lines[-1] == f"open {report}"


@pytest.mark.parametrize(
    ("said", "is_shown"),
    [
        ("Using workflow specific profile profiles/default for setting default ...", False),
        ("Using workflow specific profile /a/profiles/default for setting default ...", False),
        ("Using workflow specific profile mine for setting default ...", True),
        ("usage: snakemake", True),
    ],
)
def test_the_line_on_our_own_profile_is_left_out(monkeypatch, said, is_shown):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plugin.WithoutProfileLine(stderr))
    print(said, file=sys.stderr)
    assert sys.stderr is stderr
    print("next", file=sys.stderr)
    assert stderr.getvalue() == (f"{said}\n" * is_shown + "next\n")
