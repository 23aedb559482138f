"""Texts as contexts: the layouts by hand, what is read of files, mixtures, what cannot be read."""

import gzip
import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, SMALL, merged, raw_config
from texts import SYSTEM_PROMPT, lay_out_chat_lm, reader
from texts import tokenised as tokenised_for
from transformers import AutoTokenizer

from saemake.__main__ import main
from saemake.base.errors import SaemakeError
from saemake.commands import look, text
from saemake.config import rebuilding
from saemake.config.checks import read
from saemake.config.sections import Chat
from saemake.inputs import chats, layouts, rows, sampling
from saemake.inputs.layouts import Mixture, joined, tokenised
from saemake.inputs.rows import not_utf8
from saemake.jobs.inputs import rows_trained_on
from saemake.plan.stored import Stored
from saemake.plan.text import Texts
from saemake.recipes.inputs import tokens_recipe, training_tokens


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DEMO_LM)


@pytest.fixture(scope="module")
def chat_lm(tmp_path_factory):
    return lay_out_chat_lm(tmp_path_factory.mktemp("chat") / "lm")


def lines(*rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def contents(read, count=99):
    """What the first contexts say, and how many rows were read at each."""
    contexts = itertools.islice(read.contexts(), count)
    return [(read.tokenizer.decode(each.ids), each.row) for each in contexts]


def of_file(tmp_path, name, content, **text):
    """A reader of a text of one file."""
    (tmp_path / name).write_bytes(content)
    texts = {"mine": {"file": str(tmp_path / name), **text}}
    return reader(texts, "mine", DEMO_LM, tmp_path)


# Layouts


def test_documents_are_joined_until_they_have_four_characters_a_token():
    documents = [(0, "aaaa"), (2, "bbb"), (3, "c"), (4, "dddddddddd"), (7, "ee")]
    assert list(joined(iter(documents), 2, "<", "|")) == [(3, "<aaaa|bbb|c"), (4, "<dddddddddd")]


def test_a_mixture_goes_round_and_ends_with_the_first_part_that_has_no_more():
    def part(name, count):
        return iter([(row, np.array([name])) for row in range(count)])

    mixture = Mixture([(2, part(10, 5)), (1, part(20, 9))])
    assert [(each.part, each.row, int(each.ids[0])) for each in mixture] == [
        *((0, 0, 10), (0, 1, 10), (1, 0, 20)),
        *((0, 2, 10), (0, 3, 10), (1, 1, 20)),
        (0, 4, 10),
    ]
    assert mixture.ran_out == 0


def test_a_long_document_is_tokenised_in_parts(monkeypatch, tokenizer):
    monkeypatch.setattr(layouts, "LONG", 100)
    text = " ".join(["We hold these truths to be self-evident, that all men are equal."] * 20)
    whole = tokenizer(text)["input_ids"]
    ((row, in_parts),) = tokenised(iter([(3, text)]), tokenizer, None)
    assert (row, in_parts.tolist()) == (3, whole)
    ((_, cut),) = tokenised(iter([(3, text)]), tokenizer, 50)
    assert cut.tolist() == whole[:50]
    # What the parts are cut at has no say where there is no space.
    unbroken = "x" * 1000
    ((_, found),) = tokenised(iter([(0, unbroken)]), tokenizer, None)
    assert tokenizer.decode(found) == unbroken


def test_parts_of_a_document_share_its_special_tokens(monkeypatch, tokenizer):
    class Framed:
        """A tokenizer that puts 1 before and 2 after each document."""

        def __call__(self, text, add_special_tokens=True, **more):
            ids = [ord(character) for character in text]
            return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}

    monkeypatch.setattr(layouts, "LONG", 4)
    ((_, found),) = tokenised(iter([(0, "ab cd ef")]), Framed(), None)
    assert found.tolist() == [1, *map(ord, "ab cd ef"), 2]


def test_tokenising_takes_memory_for_a_part_only(tmp_path):
    """66 MB of text in one row. Whole, 16 MB of it take 2.6 GB."""
    code = (
        "import resource\n"
        "from transformers import AutoTokenizer\n"
        "from saemake.inputs.layouts import tokenised\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(DEMO_LM)!r})\n"
        "text = 'We hold these truths to be self-evident. ' * 1_600_000\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "((_, cut),) = tokenised(iter([(0, text)]), tokenizer, 256)\n"
        "assert len(cut) == 256\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert int(done.stdout) < 500_000, "KiB"


# Files


@pytest.mark.parametrize(
    ("separator", "expected"),
    [
        (None, [("one", 0), ("two", 1), ("three", 4)]),
        ("\n\n", [("one\ntwo", 0), ("three", 1)]),
        ("", [("one\ntwo\n\n\nthree", 0)]),
        ("t", [("one", 0), ("wo", 1), ("hree", 2)]),
    ],
)
def test_a_txt_file_is_split_where_the_config_says(tmp_path, separator, expected):
    said = {} if separator is None else {"separator": separator}
    read = of_file(tmp_path, "a.txt", b"one\r\ntwo\n\n\nthree\n", **said)
    assert contents(read) == expected


def test_files_of_all_kinds_give_the_same(tmp_path):
    documents = ["one", "two words", "three"]
    content = lines(*({"text": text} for text in documents))
    parquet = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": documents}), parquet)
    files = {
        "a.txt": "\n".join(documents).encode(),
        "a[1].jsonl": content,
        "a.jsonl.zst": zstandard.compress(content),
        "a.jsonl.gz": gzip.compress(content),
        "a.parquet": parquet.getvalue().to_pybytes(),
    }
    for name, file in files.items():
        found = contents(of_file(tmp_path, name, file))
        assert found == [(text, row) for row, text in enumerate(documents)], name


def test_rows_of_nothing_are_left_out_and_counted(tmp_path):
    content = lines({"text": "one"}, {"text": None}, {"other": 1}, {"text": ""}, {"text": "two"})
    read = of_file(tmp_path, "a.jsonl", content)
    assert contents(read) == [("one", 0), ("two", 4)]
    (line,) = read.left_out()
    assert line.endswith("2 rows left out (row 1 is null), 1 row left out (row 3 is empty)")


def refused(read):
    with pytest.raises(SaemakeError) as raised:
        list(read.contexts())
    said = str(raised.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("name", "content", "text", "said"),
    [
        (
            "a.jsonl",
            lines({"body": "x", "n": 1}),
            {},
            "no column 'text', only body, n; set texts.mi",
        ),
        ("a.jsonl", lines({"text": 3}), {}, "row 0 has no text in column 'text' but a number; set"),
        (
            "a.jsonl",
            lines({"text": [{"role": "a"}]}),
            {},
            "a list; set texts.mine.column, or texts",
        ),
        (
            "a.jsonl",
            b'{"text": "ok"}\n{"text": "caf\xe9"}\n',
            {},
            "a.jsonl: is not UTF-8 at byte 28",
        ),
        (
            "a.txt",
            b"ok\ncaf\xe9\n",
            {"separator": ""},
            "a.txt: is not UTF-8 at byte 6; write it anew",
        ),
        (
            "a.jsonl",
            b'{"text": "ok"}\n{"te',
            {},
            "cannot be read after 0 rows (ArrowInvalid: JSON pa",
        ),
        ("a.jsonl", b"", {}, "its file is empty, or ends before its end; fetch it anew"),
        (
            "a.jsonl.gz",
            gzip.compress(bytes(9999), mtime=0)[:20],
            {},
            "or ends before its end; fetch it anew",
        ),
        ("a.foo", b"x", {}, "a.foo, split 'train': Unable to find"),
        ("a.jsonl", lines({"text": "x"}), {"separator": ""}, "separator' is for .txt files, and "),
        (
            "a.jsonl",
            lines({"text": "x"}),
            {"chat": {}},
            "needs a tokenizer with a chat template, and",
        ),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, name, content, text, said):
    assert said in refused(of_file(tmp_path, name, content, **text))


def test_a_script_is_refused(tmp_path):
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text("raise SystemExit")
    read = reader({"mine": {"folder": str(folder)}}, "mine", DEMO_LM, tmp_path)
    assert "is read by a script, which saemake does not run; name data files" in refused(read)


def test_a_subset_that_is_not_said(tmp_path):
    folder = tmp_path / "several"
    folder.mkdir()
    listed = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in "ab")
    (folder / "README.md").write_text(f"---\nconfigs:\n{listed}---\n")
    for name in "ab":
        (folder / f"{name}.jsonl").write_bytes(lines({"text": name}))
    texts = {"mine": {"folder": str(folder)}}
    said = refused(reader(texts, "mine", DEMO_LM, tmp_path))
    assert said.endswith("among the available configs: ['a', 'b']; set texts.mine.subset")
    texts["mine"]["subset"] = "b"
    assert contents(reader(texts, "mine", DEMO_LM, tmp_path)) == [("b", 0)]


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", {}), ("a.txt", {"separator": "\n\n"})])
def test_an_enormous_row_is_refused(tmp_path, monkeypatch, name, text):
    monkeypatch.setattr(rows, "LONGEST", 100)
    monkeypatch.setattr(rows, "CHUNK", 50)
    content = lines({"text": "x" * 101}) if name == "a.jsonl" else b"ok\n\n" + b"x" * 101
    said = refused(of_file(tmp_path, name, content, **text))
    assert "characters, more than the most, 100; split it into documents" in said


@pytest.mark.parametrize("at", [0, 5, rows.BLOCK - 1, rows.BLOCK, rows.BLOCK + 7])
def test_the_byte_that_is_not_utf_8_is_found(tmp_path, at):
    whole = tmp_path / "whole"
    good = ("é" * rows.BLOCK).encode()
    whole.write_bytes(b"x" + good)  # a character over the end of the first block
    assert not_utf8(whole) is None
    whole.write_bytes(b"x" * at + b"\xe9" + good)
    assert not_utf8(whole) == at
    whole.write_bytes(b"x" * at + b"\xc3")
    assert not_utf8(whole) == at


# Chats


def chat(*contents, system=None):
    roles = itertools.cycle(["user", "assistant"])
    said = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return ([{"role": "system", "content": system}] if system else []) + said


def of_chats(tmp_path, lm, *conversations, **chat):
    path = tmp_path / "chats.jsonl"
    path.write_bytes(lines(*({"messages": each} for each in conversations)))
    texts = {"mine": {"file": str(path), "column": "messages", "chat": chat}}
    return reader(texts, "mine", lm, tmp_path)


def test_a_chat_is_what_the_template_writes(tmp_path, chat_lm):
    read = of_chats(tmp_path, chat_lm, chat("Hi", "Yes?"), chat("Bye", system="Be brief."))
    turn = "<|im_start|>{}\n{}<|im_end|>\n".format
    first = SYSTEM_PROMPT + turn("user", "Hi") + turn("assistant", "Yes?")
    second = turn("system", "Be brief.") + turn("user", "Bye")
    assert contents(read) == [(first, 0), (second, 1)]


def test_the_system_prompt_is_taken_out_at_the_rate_by_the_seed(tmp_path, chat_lm):
    many = [chat(f"Question {number}") for number in range(200)]
    read = of_chats(tmp_path, chat_lm, *many, system_prompt=SYSTEM_PROMPT, removed=0.7, seed=5)
    drawn = random.Random(5)
    expected = [drawn.random() >= 0.7 for _ in many]
    assert [text.startswith(SYSTEM_PROMPT) for text, _ in contents(read, 200)] == expected
    assert 0.2 < sum(expected) / 200 < 0.4
    assert all("Question" in text for text, _ in contents(read, 200))


def test_a_system_prompt_that_the_template_does_not_write(tmp_path, chat_lm):
    read = of_chats(tmp_path, chat_lm, chat("Hi"), system_prompt="You are Qwen.")
    said = refused(read)
    assert "texts.mine.chat.system_prompt': the chat template writes no such text" in said
    assert "You are a helpful assistant." in said


def test_rows_that_are_no_chat_are_left_out(tmp_path, chat_lm):
    bad = [{"role": "user", "content": None}]
    read = of_chats(tmp_path, chat_lm, bad, chat("Hi"), [], None)
    assert [row for _, row in contents(read)] == [1]
    (line,) = read.left_out()
    assert "row 0 has a message without text" in line
    assert "row 2 has no messages" in line
    assert "row 3 is null" in line


def test_a_text_of_no_chats_ends_at_its_beginning(tmp_path, chat_lm):
    other = [{"from": "human", "value": "Hi"}]
    said = refused(of_chats(tmp_path, chat_lm, *[other] * 150))
    assert "the first 100 rows give no chat: row 99 has a message of from, value, not of" in said


def test_a_template_that_refuses_is_told(tmp_path, chat_lm):
    read = of_chats(tmp_path, chat_lm, chat("Hi", system="Be brief."), chat("Hi"))
    read.tokenizer.chat_template = (
        "{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{%- endif %}x"
    )
    assert contents(read) == [("x", 1)]
    assert "row 0 is refused by the chat template (no system role)" in read.left_out()[0]


def test_a_template_that_writes_the_date_writes_the_same_each_day(tmp_path, chat_lm):
    read = of_chats(tmp_path, chat_lm, chat("Hi"))
    read.tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}"
    assert contents(read) == [("26 Jul 2024", 0)]


@pytest.mark.parametrize(
    "value", [3, "text", [], ["x"], [{"role": "user"}], [{"role": 1, "content": ""}]]
)
def test_what_is_no_conversation(value):
    assert chats.fault(value)
    assert chats.fault(chat("Hi")) is None


# The config and the recipes


def config_of(over):
    return read(raw_config(merged(over, SMALL)), PROJECT, [CONFIG_FILE])


DEMO_TEXT = {"folder": "resources/demo/text"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({}, "give one of 'folder' (a local folder), 'file'"),
        ({"folder": "x", "file": "y"}, "give one of 'folder' (a local folder), 'file'"),
        ({"file": "y", "revision": "main"}, "'revision' needs 'hub'; only a Hub id has revisions"),
        ({"file": "/nope.txt"}, "texts.mine.file': there is no file /nope.txt"),
        ({"file": "y", "train_split": "test"}, "a file has one split, 'train': remove the splits"),
        ({"mix": {"pil": 1}}, "texts.mine.mix': no text 'pil'; did you mean 'pile'?"),
        ({"mix": {"pile": 0.9}}, "texts.mine.mix.pile': input should be a valid integer, not 0.9"),
        ({"mix": {"pile": 0}}, "texts.mine.mix.pile': input should be greater than 0, not 0"),
        (
            {"mix": {"pile": 9}, "column": "x"},
            "a mixture has no 'column' of its own: say it of its",
        ),
        ({"mix": {"mine": 1}}, "texts.mine.mix': 'mine' is a mixture itself; name its parts"),
        ({"hub": "a/b", "chat": {"removed": 0.5}}, "'removed' and 'seed' need 'system_prompt'"),
        ({"hub": "a/b", "chat": {"system": "x"}}, "texts.mine.chat.system': unknown; did you mean"),
        ({"hub": "a/b", "layout": "join"}, "input should be 'documents', 'packed' or 'joined'"),
    ],
)
def test_a_text_that_the_config_cannot_have(text, said):
    with pytest.raises(SaemakeError, match="config key") as raised:
        config_of({"texts": {"mine": text}})
    assert said in str(raised.value)


def test_a_recipe_has_new_fields_only_where_they_are_used():
    recipe = tokens_recipe(config_of({}), "demo", "train")
    assert not {"separator", "chat", "mix"} & set(recipe.model_dump(mode="json"))
    texts = {
        "lines": {**DEMO_TEXT, "separator": "\n\n"},
        "chats": {**DEMO_TEXT, "chat": {"system_prompt": "x"}},
        "both": {"mix": {"lines": 9, "chats": 1}},
    }
    hashes = {recipe.hash}
    for name in texts:
        config = config_of({"texts": texts, "models": {"demo": {"text": name}}})
        hashes.add(tokens_recipe(config, "demo", "train").hash)
    assert len(hashes) == 4
    both = tokens_recipe(config, "demo", "train")
    assert [part.contexts for part in both.mix] == [9, 1]
    assert both.mix[1].chat == Chat(system_prompt="x")
    assert type(both).model_validate_json(both.model_dump_json()) == both


def test_a_mixture_is_rebuilt_elsewhere_with_its_parts(tmp_path):
    (tmp_path / "mine.txt").write_text("one\n\ntwo")
    texts = {
        "lines": {"file": str(tmp_path / "mine.txt"), "separator": "\n\n"},
        "chats": {"hub": "a/chats", "chat": {"system_prompt": "x\n"}},
        "both": {"mix": {"lines": 9, "chats": 1}},
    }
    config = config_of({"texts": texts, "models": {"demo": {"text": "both"}}})
    assert rebuilding.folders(config, "demo") == ["resources/demo/lm", "mine.txt"]
    rebuilt = yaml.safe_load(rebuilding.config_yaml(config, "demo"))
    assert rebuilt["texts"]["both"] == texts["both"]
    assert list(rebuilt["texts"]["both"]["mix"]) == ["lines", "chats"]
    assert rebuilt["texts"]["lines"]["file"] == "mine.txt"
    rebuilt["texts"]["lines"]["file"] = texts["lines"]["file"]
    again = read(raw_config(rebuilt), PROJECT, [CONFIG_FILE])
    recipes = [tokens_recipe(each, "demo", "train") for each in (config, again)]
    assert recipes[0].hash == recipes[1].hash


class Trained:
    """The manifest of a mixture that was trained on."""

    def __init__(self):
        self.manifest = {"parts": [{"rows_read": 30}, {"rows_read": 7}]}


@pytest.mark.parametrize(
    ("judged", "rows_before"),
    [("both", [7, 30, 0]), ("plain", [30]), ("other", [0]), ("joined", [30])],
)
def test_judging_begins_after_the_rows_that_each_part_was_trained_on(judged, rows_before):
    texts = {
        "plain": DEMO_TEXT,
        "chats": {"hub": "a/chats"},
        "other": {"hub": "a/other"},
        "joined": {**DEMO_TEXT, "layout": "joined"},  # the same rows
        "trained": {"mix": {"plain": 9, "chats": 1}},
        "both": {"mix": {"chats": 1, "plain": 9, "other": 1}},
    }
    core = {"sae_bench_core": {"text": judged}}
    models = {"demo": {"text": "trained", "evaluations": core}}
    config = config_of({"texts": texts, "models": models})
    recipe = tokens_recipe(config, "demo", "sae_bench_core")
    assert rows_trained_on(config, "demo", "sae_bench_core", Trained()) == rows_before
    trained = tokens_recipe(config, "demo", "train").hash
    assert recipe.after == (trained if any(rows_before) else None)
    assert {source.layout for source in recipe.sources} == {"packed"}
    assert tokens_recipe(config, "demo", "dictionary_learning").layout == "mixed"


def test_rows_that_are_split_otherwise_cannot_be_told_from_those_trained_on():
    texts = {"lines": DEMO_TEXT, "paragraphs": {**DEMO_TEXT, "separator": "\n\n"}}
    core = {"sae_bench_core": {"text": "paragraphs"}}
    models = {"demo": {"text": "lines", "evaluations": core}}
    config = config_of({"texts": texts, "models": models})
    with pytest.raises(SaemakeError, match=r"texts\.paragraphs\.separator.*write the same"):
        tokens_recipe(config, "demo", "sae_bench_core")


def test_a_plan_knows_the_layouts(tmp_path):
    """Contexts of 256 tokens; documents of 100 tokens and 400 bytes."""
    sizes = {"document_tokens": 100, "document_bytes": 400}
    texts = {
        "single": {"hub": "a/b", **sizes},
        "joined": {"hub": "a/b", "layout": "joined", **sizes},
        "packed": {"hub": "a/b", "layout": "packed", **sizes},
        "both": {"mix": {"joined": 3, "single": 1}},
    }

    def of(name):
        config = config_of({"texts": texts, "models": {"demo": {"text": name}}})
        planned = Texts(config, Stored(tmp_path))
        reading = planned.reading("demo", "train", 1)
        return planned.about("demo", "train"), reading.contexts, planned.bytes_read("demo", "train")

    # 20,480 tokens and 2 batches of 512.
    assert of("single") == (100, 216, {"single": 216 * 400})
    # Each context takes three documents to have 1,024 characters.
    assert of("joined") == (256, 84, {"joined": 84 * 3 * 400})
    assert of("packed") == (256, 84, {"packed": 216 * 400})
    assert of("both") == (217, 100, {"joined": 75 * 3 * 400, "single": 25 * 400})


@pytest.mark.parametrize(("rows", "looked_at"), [(1500, "1,000"), (5, "5")])
def test_a_drop_that_leaves_no_token_is_told(tmp_path, demo_weights, rows, looked_at):
    """At once, where the text goes on."""
    (tmp_path / "a.txt").write_text("<|endoftext|>\n" * rows)
    over = {
        "texts": {"mine": {"file": str(tmp_path / "a.txt")}},
        "models": {"demo": {"text": "mine", "training": {"drop": {"bos": True}}}},
    }
    with pytest.raises(SaemakeError) as raised:
        tokenised_for(config_of(over), demo_weights, "train", tmp_path)
    said = str(raised.value)
    assert f"'drop' leaves no token: all of the first {looked_at} contexts are <|endofte" in said
    assert not list((tmp_path / "tokens").glob("*"))


def test_joined_documents_need_an_eos(tmp_path):
    read = of_file(tmp_path, "a.txt", b"one\n", layout="joined")
    read.tokenizer.eos_token = None
    assert "layout': 'joined' puts EOS between documents, and the tokenizer of" in refused(read)


# saemake text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pil"], "no model or text 'pil' in the config; did you mean 'pile'?"),
        (["demo", "--use", "trian"], "--use trian: no such use; did you mean 'train'?"),
        (["pile", "--model", "dem"], "--model dem: no such model; did you mean 'demo'?"),
        (["openwebtext"], "text 'openwebtext': no model of the config trains on it; say whose"),
        (
            ["pile", "--model", "demo", "--use", "sae_bench_core"],
            "sae_bench_core of demo reads 'state-of-the-union', not 'pile'; leave out --use",
        ),
    ],
)
def test_a_look_that_cannot_be_had(words, said, capsys):
    assert main(["text", *words]) == 2
    assert capsys.readouterr().err.startswith(f"saemake: {said}")


def test_a_look_counts_what_is_there(tmp_path):
    """Three contexts of four rows, with two special tokens."""
    read = of_file(tmp_path, "a.txt", b"<|endoftext|>a<|endoftext|>\n\nb c\nddd\n")
    sample = sampling.of_text(read, [], 10)
    lengths = [len(ids) for ids in sample.contexts]
    config = config_of({"texts": {"mine": {"file": str(tmp_path / "a.txt")}}})
    recipe = training_tokens(config, "demo", "mine")
    asked = look.Asked("mine", "demo", "train", recipe)
    found = look.Look(config, asked, read.tokenizer, sample, None, "a sample")
    said = found.as_json()
    assert said["lengths"] == lengths
    assert sample.rows == [4]
    assert sample.ended
    assert said["special_tokens"] == {"'<|endoftext|>' (0)": 2 / sum(lengths)}
    assert said["padding"] == pytest.approx(1 - sum(lengths) / (3 * max(lengths)))
    assert said["parts"][0]["rows_a_context"] == pytest.approx(4 / 3)
    assert said["contexts_needed"] == round(recipe.amount / (sum(lengths) / 3))
    assert said["samples"] == ["<|endoftext|>a<|endoftext|>", "b c", "ddd"]
    shown = " ".join(" ".join(text.InWords(found).lines()).split())
    assert "1 row left out (row 1 is empty)" in shown
    assert "but the text has no more than this sample" in shown


@pytest.mark.parametrize(
    ("share", "said"),
    [
        *((0, "0 %"), (0.0001, "under 0.1 %"), (0.004, "0.4 %"), (0.03, "3 %"), (0.314, "31 %")),
        *((0.995, "99.5 %"), (0.9999, "over 99.9 %"), (1, "100 %")),
    ],
)
def test_a_share_in_words(share, said):
    assert text._percent(share) == said
