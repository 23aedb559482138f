"""Stands in for conda in a test, since no channel of conda's can be reached: answers what Snakemake
asks, and makes an environment as conda does but for its python, which is this one.

    python conda_stand_in.py FOLDER             makes FOLDER/bin/conda and FOLDER/bin/activate
    python conda_stand_in.py FOLDER info --json  answers as conda

As conda does, it installs the pip section from a file beside the conda file that it is given, with
that folder as the working directory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import yaml


def make(folder: Path) -> None:
    """The commands `conda`, and `source activate`, which writes down what it activates."""
    (folder / "bin").mkdir(parents=True)
    conda, activate = folder / "bin" / "conda", folder / "bin" / "activate"
    conda.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {folder} "$@"\n')
    conda.chmod(0o755)
    activate.write_text(f'export PATH="$1/bin:$PATH"\necho "$1" >> {folder / "activated"}\n')


def answer(folder: Path, words: list[str]) -> str | None:
    """What `conda WORDS` prints; None where it is not known."""
    match words:
        case ["info", "--json"]:
            return json.dumps({"conda_prefix": str(folder), "platform": "linux-64"})
        case ["--version"]:
            return "conda 25.9.1"
        case ["config", "--get", "channel_priority", "--json"]:
            return json.dumps({"get": {"channel_priority": "strict"}})
        case ["env", "create", *options]:
            return _create(options)
        case ["clean", *_]:
            return ""
        case _:
            return None


def _create(words: list[str]) -> str:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path)
    parser.add_argument("--prefix", type=Path)
    options, _ = parser.parse_known_args(words)
    described = yaml.safe_load(options.file.read_text())["dependencies"]
    python, (section,) = described[0], [each for each in described if isinstance(each, dict)]
    assert python == f"python={sys.version_info.major}.{sys.version_info.minor}", python
    venv.create(options.prefix, with_pip=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=options.file.parent) as pins:
        pins.write("\n".join(section["pip"]))
        pins.flush()
        pip = [str(options.prefix / "bin" / "python"), "-m", "pip", "install"]
        # Few of the modules are ever imported: compiling all of them takes minutes.
        pip += ["--quiet", "--no-compile", "-U", "-r", pins.name]
        subprocess.run(pip, cwd=options.file.parent, check=True)
    return "done"


def main(folder: Path, words: list[str]) -> int:
    if not words:
        make(folder)
        return 0
    said = answer(folder, words)
    print(said if said is not None else f"conda {' '.join(words)}: not known here")
    return int(said is None)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
