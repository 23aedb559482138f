"""What a real run shows on a terminal, and outside of one."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

from conftest import LAYER

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SAE = f"{LAYER}/top_k/256/k_4/ae.pt"


def on_a_terminal(workflow, columns, *arguments):
    """A run on a terminal of so many columns: its status and the lines it wrote, painted ones
    too."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        workflow.command(*arguments),
        cwd=workflow.folder,
        env=workflow.environment(TERM="xterm-256color", LC_ALL="C.UTF-8"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # nobody has it open any more
            break
        if not part:
            break
        written += part
    os.close(master)
    text = ESCAPES.sub("", written.decode()).replace("\r\n", "\n").replace("\r", "")
    return process.wait(60), text.splitlines()


def test_on_a_terminal_a_table_shows_what_runs(workflow):
    status, lines = on_a_terminal(workflow, 80, SAE)
    assert status == 0, lines
    assert max(map(len, lines)) <= 80, lines
    assert not any("profile" in line for line in lines)
    assert re.fullmatch(rf"Built {SAE}: 1 job, \d+ s", lines[-1]), lines
    assert any(line.startswith("train top_k/256 (2 SAEs)") for line in lines)
    assert any(re.match(r"running +time +done +left", line) for line in lines)
    assert any(re.fullmatch(r"done  train demo/L3/top_k/256 \(2 SAEs\), \d+ s", x) for x in lines)
    # No list of files, and nothing that only Snakemake says.
    for noise in ("Building DAG", "input:", "Select jobs", "ae.pt, ", "it/s"):
        assert not any(noise in line for line in lines), noise
    assert not list((workflow.folder / "results/.store/running").iterdir())
    # Outside a terminal: a plain line an event; of a failure, our line last.
    workflow.configure({"models": {"demo": {"training": {"learning_rate": 1e30}}}})
    plain = workflow.fail(SAE.replace("top_k", "batch_top_k"))
    assert "\x1b" not in plain
    assert "\r" not in plain
    lines = plain.splitlines()
    assert any(re.match(r"\d\d:\d\d:\d\d Job \d+: train 2 SAEs demo/L3/batch", x) for x in lines)
    assert "at most about" in plain
    assert re.search(r"saemake: job \d+ failed; its log is logs/train/demo/L3/batch_top_k", plain)
    assert re.match(r"saemake: demo/L3/batch_top_k/256/k_\d: the loss is not finite", lines[-1])
    assert lines[-1].endswith("; its log is logs/train/demo/L3/batch_top_k/256.log")
