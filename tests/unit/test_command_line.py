"""snakemake's command line is looked at before snakemake reads it."""

import shlex

import pytest
import yaml
from snakemake.cli import get_argument_parser

from saemake.base import yaml_file
from saemake.base.errors import SaemakeError
from saemake.base.source import ROOT
from saemake.commands import command_line
from snakemake_logger_plugin_saemake import runs_saemake

SAE = "results/demo/L3/top_k/1k/k_8/ae.pt"
TABLE = "results/demo/L3/top_k/1k/metrics.json"


def put_right(line):
    """The command that the line for a command gives."""
    with pytest.raises(SaemakeError) as caught:
        command_line.check(shlex.split(line))
    message, command = str(caught.value).split("; name targets first: snakemake ")
    assert "which takes it as its own value" in message
    return command


@pytest.mark.parametrize(
    ("line", "right"),
    [
        (f"--resources gpu=1 {SAE}", f"{SAE} --resources gpu=1"),
        (f"-n --resources gpu=1 {SAE} {TABLE} -k", f"{SAE} {TABLE} -n --resources gpu=1 -k"),
        (f"--config 'a={{b: 1}}' {SAE}", f"{SAE} --config 'a={{b: 1}}'"),
        (f"{TABLE} --configfile own.yaml {SAE}", f"{SAE} {TABLE} --configfile own.yaml"),
        (f"--configfile own.yaml {SAE} --cores 2", f"{SAE} --configfile own.yaml --cores 2"),
        (f"--set-threads a=1 {SAE}", f"{SAE} --set-threads a=1"),
        (f"--rerun-trig mtime {SAE}", f"{SAE} --rerun-trig mtime"),
        (f"--quiet host {SAE}", f"{SAE} --quiet host"),
        (f"-q {SAE}", f"{SAE} -q"),
        (f"--dag {SAE}", f"{SAE} --dag"),
        (f"--report {SAE}", f"{SAE} --report"),
        (f"--resources gpu=1 result/{SAE}", f"result/{SAE} --resources gpu=1"),
        ("--configfile own.yaml all", "all --configfile own.yaml"),
        ("-R tokens published-to/a/b/demo/plan.txt", "published-to/a/b/demo/plan.txt -R tokens"),
        ("-U hub/a/b tokens hub/c/d -n", "hub/c/d -U hub/a/b tokens -n"),
    ],
)
def test_a_target_after_an_option_is_put_first(line, right):
    assert put_right(line) == right


@pytest.mark.parametrize(
    "line",
    [
        f"{SAE} --resources gpu=1 --cores 2 -n",
        f"--cores 1 {SAE}",
        f"-n {SAE}",
        f"--force {SAE}",
        f"--resources=gpu=1 {SAE}",
        f"--report results/report.html {SAE}",
        f"--forcerun {SAE}",
        f"--until {SAE} {TABLE}",
        f"{SAE} --forcerun tokens {TABLE}",
        f"--cleanup-metadata {SAE}",
        f"--quiet all -- {SAE}",
        "--allowed-rules all",
        f"--set-threads a=1 -- {SAE}",
    ],
)
def test_what_snakemake_understands_passes(line):
    command_line.check(shlex.split(line))


def test_a_config_file_is_no_target_wherever_it_lies():
    words = shlex.split("--configfile results/own.json saelens/demo/more.yaml -n")
    assert list(command_line.config_files(words)) == words[1:3]
    command_line.check_order(["snakemake"], words)
    words = shlex.split(f"--configfile {SAE} {TABLE}")
    assert list(command_line.config_files(words)) == [SAE]
    with pytest.raises(SaemakeError, match=f"^{TABLE} comes after --configfile"):
        command_line.check_order(["snakemake"], words)


def test_each_option_of_snakemake_that_takes_several_words_is_known():
    takes_files = {"--cleanup-metadata", "--cm", "--wait-for-files", "--unneeded-temp-files"}
    # The last is for snakemake's own processes.
    takes_files |= {"--generate-unit-tests", "--target-jobs"}
    options = {
        nargs: {name for a in get_argument_parser()._actions if a.nargs == nargs
                for name in a.option_strings}
        for nargs in ("+", "*", "?", None, 0)
    }  # fmt: skip
    several = command_line.TAKE_VALUES | command_line.TAKE_WORDS | command_line.TAKE_TARGETS
    assert several == (options["+"] | options["*"]) - takes_files
    assert options["?"] - takes_files == command_line.TAKE_ONE
    # What shortens an option to these is none of snakemake's own.
    assert not {option for option in options[None] | options[0] if command_line._option(option)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SAE} --corse 2", "snakemake has no option '--corse'; did you mean '--cores'?"),
        (f"{SAE} --configfiel=own.yaml", "no option '--configfiel'; did you mean '--configfile'?"),
        (f"-n --forcall {SAE}", "no option '--forcall'; did you mean '--forceall'?"),
    ],
)
def test_an_option_that_is_none_is_one_line_with_the_nearest(line, message):
    with pytest.raises(SaemakeError) as caught:
        command_line.check_options(shlex.split(line))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "line", ["-np --cores=2", "--rerun-trig mtime", "-n -- --corse", "--summary"]
)
def test_options_of_snakemake_pass(line):
    command_line.check_options(shlex.split(line))


def test_usual_options_are_options_of_snakemake():
    options = {name for each in get_argument_parser()._actions for name in each.option_strings}
    assert options >= command_line.USUAL


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("widths:\n  a: 8\n b: [1\n", "line 3: not valid YAML (expected <block end>"),
        ("a: b: c\n", "line 1: not valid YAML (mapping values are not allowed here)"),
        ("a:\n\tb: 1\n", "line 2: not valid YAML (found character '\\t'"),
        ("models: {a: 1}\nbuild: [a]\nmodels: {}\n", "line 3: 'models' appears twice, first in"),
        ("a:\n  - {b: 1,\n     b: 2}\n", "line 3: 'b' appears twice, first in line 2"),
        ("revision: 2024-02-30\n", "not valid YAML (day is out of range for month)"),
        ("- a\n", "not a config file"),
        ("", "not a config file"),
        (None, "there is no such config file"),
    ],
)
def test_a_config_file_that_cannot_be_read_is_one_line(tmp_path, content, message):
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_text(content)
    for check in (
        lambda: yaml_file.read(path),
        lambda: command_line.check(["all", "--configfile", str(path)]),
        lambda: command_line.check(["all", f"--configfile={path}"]),
    ):
        with pytest.raises(SaemakeError) as caught:
            check()
        assert str(caught.value).startswith(str(path))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_config_file_is_read_as_it_is(tmp_path):
    content = {"widths": {"tiny": 8}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    assert yaml_file.read(tmp_path / "own.yaml") == content


def test_only_this_workflow_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert runs_saemake(["/bin/snakemake", SAE])
    assert runs_saemake(["/lib/snakemake/__main__.py", SAE])
    assert not runs_saemake(["/bin/pytest", SAE])
    monkeypatch.chdir(tmp_path)
    assert not runs_saemake(["/bin/snakemake", SAE])
    for words in (["-s", f"{ROOT}/Snakefile"], [f"--snakefile={ROOT}/Snakefile"]):
        assert runs_saemake(["/bin/snakemake", SAE, *words])
    (tmp_path / "Snakefile").touch()
    assert not runs_saemake(["/bin/snakemake", SAE])
