"""Find published SAEs by words of their name on the Hub or of their name under results/.

Prints for each: the target that rebuilds it, the target that lays it out as published, and its
published L0 and loss recovered, as of SAE Bench's core evaluation.
"""

import argparse

from saemake.base.errors import SaemakeError, nearest
from saemake.config.config import Config
from saemake.paths import catalogue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="+", metavar="TEXT", help="a name, or words of it")


def run(config: Config, options: argparse.Namespace) -> int:
    known = catalogue.load(config)
    matches = catalogue.find(known, " ".join(options.text))
    if not matches:
        why = _suggestion(known, options.text)
        raise SaemakeError(f"find: no published SAE has all these words in its names; {why}")
    for entry in matches:
        print(f"{known.name(entry).folder}/ae.pt")
        print(f"  {entry.hub_folder}/ae.pt")
        print(f"  published: {_figures(entry)}")
    print(f"{len(matches)} of {len(known.entries)} published SAEs")
    return 0


def _figures(entry: catalogue.Entry) -> str:
    keys = {"L0": "core_l0", "loss recovered": "core_loss_recovered"}
    known = [
        f"{name} {entry.figures[key]:.4g}" for name, key in keys.items() if key in entry.figures
    ]
    return ", ".join(known) or "no figures of SAE Bench's core evaluation"


def _suggestion(known: catalogue.Catalogue, words: list[str]) -> str:
    """A clause that names the word that is in no name, and the nearest one that is."""
    unknown = [word for word in words if not catalogue.find(known, word)]
    if not unknown:
        return "each word is in some name, but no name has all of them"
    parts = {
        part
        for entry in known.entries
        for part in f"{entry.hub_folder}/{known.name(entry)}".split("/")
    }
    word = unknown[0].rstrip("/").rpartition("/")[2]
    return f"no name has '{word}'; {nearest(word, parts)}"
