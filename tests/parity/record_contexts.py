"""Record the contexts that dictionary_learning's own generators give, for test_contexts.py. They
are in no release, only on its main branch (here commit 60ec6bf of 20 August 2025):

    git clone https://github.com/saprmarks/dictionary_learning CHECKOUT
    PYTHONPATH=CHECKOUT:tests:. .venv/bin/python tests/parity/record_contexts.py
"""

import hashlib
import itertools
import json
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from peers import demo_documents
from texts import SYSTEM_PROMPT, lay_out_chat_lm, lay_out_texts
from transformers import AutoTokenizer

RECORDED = Path(__file__).with_name("contexts.json")
LENGTH, CONTEXTS, DOCUMENTS = 256, 40, 300
# Of 4 contexts of the mixture 3 are plain text.
SHARE = 0.75


def summed(contexts: Iterable[Iterable[int]]) -> list[str]:
    """The length of each context, and the beginning of the sha256 of its ids as int32."""
    arrays = [np.array(list(ids), dtype=np.int32) for ids in contexts]
    return [f"{len(ids)} {hashlib.sha256(ids.tobytes()).hexdigest()[:16]}" for ids in arrays]


def main() -> None:
    from dictionary_learning.utils import (
        hf_mixed_dataset_to_generator,
        hf_sequence_packing_dataset_to_generator,
    )

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        tokenizer = AutoTokenizer.from_pretrained(lay_out_chat_lm(root / "lm"))
        lay_out_texts(root, demo_documents("train", DOCUMENTS))
        plain, chat = str(root / "plain"), str(root / "chat")

        def mixed(**more):
            return hf_mixed_dataset_to_generator(
                tokenizer,
                plain,
                chat,
                min_chars=4 * LENGTH,
                pretrain_frac=SHARE,
                chat_key="messages",
                system_prompt_to_remove=SYSTEM_PROMPT,
                **more,
            )

        generators = {
            "joined": hf_sequence_packing_dataset_to_generator(
                tokenizer, plain, min_chars=4 * LENGTH
            ),
            "mixed": mixed(),
            "mixed, chats joined": mixed(sequence_pack_chat=True),
        }
        found = {}
        for kind, generator in generators.items():
            random.seed(0)  # as the demo does
            texts = list(itertools.islice(generator, CONTEXTS))
            # As the library's buffer tokenises.
            encoded = tokenizer(texts, max_length=LENGTH, truncation=True, add_special_tokens=False)
            found[kind] = summed(encoded["input_ids"])
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
