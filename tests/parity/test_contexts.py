"""The same contexts for the same rows: as dictionary_learning's generators give (recorded by
record_contexts.py, which runs the library's own code), and as SAELens packs, whose code runs here.
"""

import importlib.util
import itertools
import json

import numpy as np
import pytest
import torch
from conftest import PROJECT
from parity.record_contexts import CONTEXTS, DOCUMENTS, LENGTH, RECORDED, summed
from peers import demo_documents
from texts import SYSTEM_PROMPT, lay_out_chat_lm, lay_out_texts, reader


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """An LM with a chat template, and texts."""
    root = tmp_path_factory.mktemp("ground")
    lay_out_chat_lm(root / "lm")
    lay_out_texts(root, demo_documents("train", DOCUMENTS))
    return root


def texts_of(root, chats="documents"):
    chat = {"system_prompt": SYSTEM_PROMPT}
    folder = str(root / "chat")
    return {
        "plain": {"folder": str(root / "plain"), "layout": "joined"},
        "chats": {"folder": folder, "column": "messages", "layout": chats, "chat": chat},
        "both": {"mix": {"plain": 3, "chats": 1}},
    }


@pytest.mark.parametrize(
    ("kind", "text", "chats"),
    [
        ("joined", "plain", "documents"),
        ("mixed", "both", "documents"),
        ("mixed, chats joined", "both", "joined"),
    ],
)
def test_contexts_are_dictionary_learnings(ground, tmp_path, kind, text, chats):
    read = reader(texts_of(ground, chats), text, ground / "lm", tmp_path)
    ours = [context.ids for context in itertools.islice(read.contexts(), CONTEXTS)]
    assert summed(ours) == json.loads(RECORDED.read_text())[kind]


def saelens():
    """SAELens's module, which imports nothing else of it."""
    (file,) = PROJECT.glob(
        ".venv-saebench/lib/python*/site-packages/sae_lens/tokenization_and_batching.py"
    )
    spec = importlib.util.spec_from_file_location("saelens_batching", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.acceptance
@pytest.mark.parametrize("text", ["plain", "chats"])
def test_packed_contexts_are_saelenss(ground, tmp_path, text):
    texts = texts_of(ground, "packed")
    texts["plain"]["layout"] = "packed"
    texts["chats"]["chat"] = {}  # SAELens takes nothing out
    read = reader(texts, text, ground / "lm", tmp_path)
    ours = [context.ids for context in itertools.islice(read.contexts(), CONTEXTS)]

    peer, tokenizer = saelens(), read.tokenizer
    if text == "plain":
        plain = demo_documents("train", DOCUMENTS)
        documents = [torch.tensor(tokenizer(document)["input_ids"]) for document in plain]
    else:
        lines = (ground / "chat" / "train.jsonl").read_text().splitlines()
        chats = [json.loads(line)["messages"] for line in lines]
        documents = [peer.tokenize_with_chat_template(chat, tokenizer) for chat in chats]
    theirs = peer.concat_and_batch_sequences(
        iter(documents),
        context_size=LENGTH,
        begin_batch_token_id=tokenizer.bos_token_id,
        sequence_separator_token_id=tokenizer.bos_token_id,
    )
    for one, other in zip(ours, itertools.islice(theirs, CONTEXTS), strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    assert len(ours) >= 20
