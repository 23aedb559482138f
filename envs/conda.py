"""Write the conda files beside this program from the pins of pip. `make lock` runs it.

Snakemake copies a conda file to another folder, and conda installs from there. So the file holds
the pins themselves and refers to no other file.
"""

from pathlib import Path

ENVS = Path(__file__).parent
PYTHON = "3.11"
# The file of the pins, the name of the environment if it has one, and what a reader should know.
FILES = {
    "saemake.yaml": (
        "requirements.txt",
        None,
        """\
The environment of the jobs, for `snakemake --sdm conda`: the pins of requirements.txt.
saemake itself is not in it: jobs import it from where Snakemake's own python does.""",
    ),
    "saebench.yaml": (
        "saebench.txt",
        "saemake-saebench",
        """\
The environment of SAE Bench's own code, for conda: the pins of saebench.txt.
  PIP_NO_DEPS=1 conda env create -f envs/saebench.yaml
  export SAEMAKE_SAE_BENCH_PYTHON=$(conda run -n saemake-saebench which python)
Without PIP_NO_DEPS pip wants the torchvision that sae-bench asks for and never imports.""",
    ),
}


def content(file: str) -> str:
    """What a conda file should hold."""
    pins, name, comment = FILES[file]
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f"name: {name}"] if name else []
    lines += ["channels:", "  - conda-forge", "dependencies:", f"  - python={PYTHON}"]
    lines += ["  - pip", "  - pip:"]
    lines += [f"      - {pin}" for pin in (ENVS / pins).read_text().split()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for file in FILES:
        (ENVS / file).write_text(content(file))
