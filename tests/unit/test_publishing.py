"""SAEs in SAELens's format; the config that rebuilds a suite; and pushes of small files by the real
client to a Hub on this machine."""

import json

import hf_xet
import pytest
import torch
import yaml
from conftest import PROJECT, SMALL, merged, raw_config
from hub_server import LocalHub
from peers import SHARED
from safetensors.torch import load
from unit.test_architectures import make

from saemake import architectures
from saemake.architectures import constraints
from saemake.base.errors import SaemakeError
from saemake.base.store import sha256
from saemake.config import rebuilding
from saemake.config.checks import read
from saemake.config.sections import Publishing
from saemake.paths.command_words import check_target
from saemake.paths.files import suite_files, suite_saes
from saemake.publishing import saelens
from saemake.publishing.faults import talking
from saemake.publishing.push import batches, push
from saemake.publishing.push_plan import File, look, plan, text
from saemake.recipes.judging import sae_evaluation_recipe
from saemake.recipes.training import sae_recipe

REPO = "somebody/saes"
KEPT = Publishing(private=True, overwrite=False, license=None)
OVERWRITING = Publishing(private=True, overwrite=True, license=None)


# SAELens's format.


def drawn(architecture):
    """A dictionary of D = 3 and F = 8, all of whose parameters are drawn; thresholds of 0.3."""
    dictionary = make(architecture, d_model=3, width=8).dictionary
    torch.manual_seed(0)
    for parameter in dictionary.parameters():
        torch.nn.init.normal_(parameter)
    if architecture == "matching_pursuit":
        constraints.normalise_(dictionary.W_dec.data, 1, epsilon=0.0)
    if hasattr(dictionary, "threshold"):
        dictionary.threshold.data.fill_(0.3)
    return dictionary


def sae_lens_encode(cfg, weights, x):
    """What the classes of SAELens compute, written down from its source."""
    x = x - weights["b_dec"] * cfg["apply_b_dec_to_input"]
    if cfg["architecture"] == "matching_pursuit":
        assert "W_enc" not in weights
        assert (cfg["residual_threshold"], cfg["stop_on_duplicate_support"]) == (0, False)
        latents = torch.zeros(len(x), len(weights["W_dec"]))
        for _ in range(cfg["max_iterations"]):
            values, indices = (x @ weights["W_dec"].T).relu().max(dim=1, keepdim=True)
            latents.scatter_add_(1, indices, values)
            x = x - values * weights["W_dec"][indices[:, 0]]
        return latents
    if cfg["architecture"] == "gated":
        gate = x @ weights["W_enc"] + weights["b_gate"] > 0
        return gate * (x @ (weights["W_enc"] * weights["r_mag"].exp()) + weights["b_mag"]).relu()
    before = x @ weights["W_enc"] + weights["b_enc"]
    if cfg["architecture"] == "abstopk":
        indices = before.abs().topk(cfg["k"], dim=-1).indices
        return torch.zeros_like(before).scatter(-1, indices, before.gather(-1, indices))
    if cfg["architecture"] == "topk":
        values, indices = before.topk(cfg["k"], dim=-1)
        return torch.zeros_like(before).scatter(-1, indices, values.relu())
    if cfg["architecture"] == "jumprelu":
        return before.relu() * (before > weights["threshold"])
    assert cfg["architecture"] == "standard"
    return before.relu()


@pytest.mark.parametrize("architecture", architectures.names())
@torch.no_grad()
def test_an_export_is_the_same_function_or_is_refused(architecture):
    """Of an architecture of one's own nothing may be registered with SAELens's classes."""
    dictionary = drawn(architecture)
    registered = saelens.form.dispatch(type(dictionary)) is not saelens.form.dispatch(object)
    assert registered or architecture not in SHARED
    if not registered:
        with pytest.raises(SaemakeError, match="has no form in SAELens, so it is not exported"):
            saelens.weights(dictionary)
        return
    weights = load(saelens.weights(dictionary))
    cfg = json.loads(saelens.cfg(dictionary, {"hook_name": "x"}))
    assert (cfg["d_in"], cfg["d_sae"], cfg["normalize_activations"]) == (3, 8, "none")
    x = torch.randn(64, 3)
    latents = sae_lens_encode(cfg, weights, x)
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(latents, dictionary.encode(x), atol=1e-6, rtol=1e-6)
    decoded = latents @ weights["W_dec"] + weights["b_dec"]
    torch.testing.assert_close(decoded, dictionary.decode(latents), atol=1e-6, rtol=1e-6)


def test_an_export_has_the_same_bytes_each_time():
    assert saelens.weights(drawn("gated")) == saelens.weights(drawn("gated"))


def test_a_dictionary_that_sae_lens_has_no_class_for_is_named():
    with pytest.raises(SaemakeError, match="Identity has no form in SAELens"):
        saelens.form(torch.nn.Identity())


# Names.


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("saelens/demo/L3/top_k/1k/k_x/cfg.json", "^saelens/demo.*: no sparsity 'k_x'.*mean 'k_"),
        (
            "saelens/demo/L3/top_k/1k/k_8/cfg.jsn",
            "no file 'cfg.jsn'; did you mean 'cfg.json'",
        ),
        ("saelens/demo/L3/top_k", "name a file of an SAE: saelens/<model>/L<layer>/"),
        ("published-to/somebody/saes", "name the repository and the model: published-to/"),
        ("published-to/somebody/saes/dem/plan.txt", "no model 'dem' in the config.*mean 'demo'"),
        ("published-to/somebody/saes/demo/plan", "no file 'plan'; did you mean 'plan.txt'"),
        ("published-to/../saes/demo/plan.txt", "no repository of the Hub"),
        ("published-to/somebody/sa..es/demo/plan.txt", "no repository of the Hub"),
    ],
)
def test_wrong_names_are_told_the_right_ones(config, path, message):
    with pytest.raises(SaemakeError, match=message):
        check_target(config, path)


def test_right_names_pass(config):
    for path in (
        "saelens/demo/L3/top_k/1k/k_8/sae_weights.safetensors",
        "published-to/somebody/saes/demo/receipt.json",
        "results/demo/L3/top_k/1k/k_8/ae.pt",
        "all",
    ):
        check_target(config, path)


def test_a_suite_with_checkpoints_sends_them_and_their_tables(config):
    files = suite_files(config, "gemma-2-2b")
    folder = "results/gemma-2-2b/L12/top_k/16k/k_80"
    assert f"{folder}/checkpoints/ae_0.pt" in files
    assert f"{folder}/checkpoints/metrics.json" in files
    assert "results/gemma-2-2b/L12/figures/loss_recovered_vs_tokens.svg" in files
    assert not any("batch_top_k" in file and "checkpoints" in file for file in files)
    assert len([file for file in files if file.endswith("/ae.pt")]) == 7 * 3 * 6
    assert len(set(files)) == len(files)


# The config that rebuilds.


@pytest.mark.parametrize("drop", [{}, {"bos": "true", "norm_over_median": "10"}])
@pytest.mark.parametrize("model", ["demo", "pythia-70m-deduped", "gemma-2-2b"])
def test_the_published_config_asks_for_the_same_recipes(model, drop):
    shared = {"seed": 3, "learning_rate": "2e-4", "drop": drop}
    core = {"text": None, "drop": drop}
    over = merged({"training": shared, "evaluations": {"sae_bench_core": core}}, SMALL)
    over["models"][model] = {"prepend_bos": bool(drop), **over["models"].get(model, {})}
    config = read(raw_config(over), PROJECT, [])
    published = yaml.safe_load(rebuilding.config_yaml(config, model))
    rebuilt = read(raw_config(published), PROJECT, [])
    assert rebuilt.build == [model]
    saes = suite_saes(config, model)
    assert suite_saes(rebuilt, model) == saes
    for sae in saes:
        assert sae_recipe(rebuilt, sae) == sae_recipe(config, sae)
        for name in config.text_evaluations:
            asked = [sae_evaluation_recipe(c, sae, name) for c in (rebuilt, config)]
            assert asked[0] == asked[1]
    assert suite_files(rebuilt, model) == suite_files(config, model)
    elsewhere = {"training": {"drop": {"special": True}}}
    elsewhere["evaluations"] = {"sae_bench_core": elsewhere["training"]}
    over_another = read(raw_config(merged(published, elsewhere)), PROJECT, [])
    assert sae_recipe(over_another, saes[0]) == sae_recipe(config, saes[0])
    assert rebuilt.publishing == read(raw_config(), PROJECT, []).publishing


def test_the_published_config_tells_no_path_of_this_machine(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "train.jsonl").write_text("{}\n")
    over = {"texts": {"mine": {"folder": str(folder), "evaluation_split": "train"}}}
    config = read(raw_config(merged({"models": {"demo": {"text": "mine"}}}, over)), PROJECT, [])
    published = rebuilding.config_yaml(config, "demo")
    assert str(tmp_path) not in published
    assert yaml.safe_load(published)["texts"]["mine"]["folder"] == "texts"
    assert rebuilding.folders(config, "demo") == ["resources/demo/lm", "texts"]


def test_flags_on_the_command_line_are_strings():
    """As Snakemake gives `--config 'publishing={overwrite: true}'`."""
    config = read(raw_config({"publishing": {"overwrite": "true"}}), PROJECT, [])
    assert config.publishing.overwrite is True
    with pytest.raises(SaemakeError, match=r"'publishing\.overwrite': .*not 'yes'"):
        read(raw_config({"publishing": {"overwrite": "yes"}}), PROJECT, [])


# Pushes.


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with LocalHub() as made, made.inside(tmp_path / "hf"):
        made.grant("hf_right", "somebody", {"somebody"})
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        yield made


@pytest.fixture
def files(tmp_path):
    """A small suite: a card, the config, an SAE, a table, and 100 kB that are no LFS file."""
    contents = {
        "L3/k_4/ae.pt": b"weights",
        "L3/k_4/config.json": b"{}",
        "L3/figure.pdf": bytes(100_000),
        "saemake.yaml": b"build: [demo]\n",
        "README.md": b"---\ntags:\n- a\n---\n# SAEs\n",
    }
    return [made(tmp_path, path, content) for path, content in contents.items()]


def made(folder, path, content):
    source = folder / "here" / path
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(content)
    return File(path, source, len(content), sha256(source))


def planned(files, publishing=KEPT, model="demo"):
    return plan(look(REPO), model, files, publishing)


def refused(files, publishing=KEPT, model="demo"):
    with pytest.raises(SaemakeError) as caught:
        push(planned(files, publishing, model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sent(hub, since):
    """The requests since then that send something."""
    return [request for request in hub.requests[since:] if request[0] in ("POST", "PUT")]


def changed(files, path, content):
    """The files, of which that one has another content."""
    file = next(file for file in files if file.path == path)
    file.source.write_bytes(content)
    other = File(path, file.source, len(content), sha256(file.source))
    return [other if file.path == path else file for file in files]


def test_a_plan_sends_nothing_and_a_push_does_what_it_says(hub, files):
    said = text(planned(files))
    assert not sent(hub, 0)
    assert f"demo to {REPO}, made by the push, private" in said
    assert "new               100,000  L3/figure.pdf" in said
    assert said.endswith("A push would send 5 files, 0.10 MiB.\n")
    receipt = push(planned(files))
    there = hub.files("model", REPO)
    assert {file.path: file.source.read_bytes() for file in files} == {
        path: content for path, content in there.items() if path != ".gitattributes"
    }
    assert receipt["revision"] == hub.commits("model", REPO)[-1]
    # The config comes first, the card last.
    assert [commit["files"] for commit in receipt["commits"]] == [
        ["saemake.yaml"],
        ["L3/figure.pdf", "L3/k_4/ae.pt", "L3/k_4/config.json"],
        ["README.md"],
    ]
    assert [commit["commit"] for commit in receipt["commits"]] == hub.commits("model", REPO)[1:]
    assert receipt["files"]["L3/k_4/ae.pt"] == {"bytes": 7, "sha256": files[0].sha256}


def test_a_second_push_sends_nothing_and_fetches_no_file(hub, files):
    first = push(planned(files))
    asked = len(hub.requests)
    second = push(planned(files))
    assert not sent(hub, asked)
    assert not any("/resolve/" in path for _, path, _ in hub.requests[asked:])
    assert (second["revision"], second["files"]) == (first["revision"], first["files"])
    assert second["commits"] == []
    assert "unchanged     5 files" in text(planned(files))


def test_only_what_is_new_is_sent(hub, files, tmp_path):
    push(planned(files))
    asked = len(hub.requests)
    more = made(tmp_path, "L3/k_8/ae.pt", b"more weights")
    assert "new           1 files" in text(planned([*files, more]))
    receipt = push(planned([*files, more]))
    assert [commit["files"] for commit in receipt["commits"]] == [["L3/k_8/ae.pt"]]
    assert [path for method, path, _ in sent(hub, asked) if method == "PUT"] == [
        f"/cdn/upload/{REPO}/{more.sha256}"
    ]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("L3/k_4/ae.pt", b"WEIGHTS"),
        ("L3/k_4/ae.pt", b"of another size"),
        ("L3/k_4/config.json", b"[]"),
    ],
)
def test_what_differs_is_named_and_nothing_is_sent_unless_asked(hub, files, path, content):
    push(planned(files))
    asked, before = len(hub.requests), hub.files("model", REPO)
    others = changed(files, path, content)
    said = refused(others)
    source = next(file.source for file in others if file.path == path)
    assert said.startswith(f"{REPO}: {path} there differs from {source} here; to replace what")
    assert "--config 'publishing={overwrite: true}'" in said
    assert "A push would be refused: " in text(planned(others))
    assert not sent(hub, asked)
    assert hub.files("model", REPO) == before
    push(planned(others, OVERWRITING))
    assert hub.files("model", REPO) == {**before, path: content}


@pytest.mark.parametrize("publishing", [KEPT, OVERWRITING])
@pytest.mark.parametrize("path", ["README.md", "model.bin"])
def test_somebodys_repository_is_refused_also_where_overwriting_is_asked(
    hub, files, path, publishing
):
    hub.commit("model", REPO, {path: b"theirs"})
    said = refused(files, publishing)
    assert f"{REPO} was not made by saemake: it has {path} and no saemake.yaml" in said
    assert "push to another repository" in said
    assert not sent(hub, 0)


def test_an_empty_repository_is_filled(hub, files):
    hub.commit("model", REPO, {".gitattributes": b""})
    push(planned(files))
    assert "L3/k_4/ae.pt" in hub.files("model", REPO)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"build: [other]\n", "has the suite of 'other', not of 'demo'"),
        (b"a: [", "has a saemake.yaml that saemake did not write ("),
        (b"- 1\n", "has a saemake.yaml that saemake did not write ("),
    ],
)
def test_a_repository_of_another_suite_is_refused(hub, files, config, message):
    hub.commit("model", REPO, {"saemake.yaml": config})
    assert message in refused(files, OVERWRITING)
    assert not sent(hub, 0)


def test_an_interrupted_push_goes_on_with_the_rest(hub, files):
    hub.drop("/commit/main", 50_000)  # in the middle of the second, the first being small
    said = refused(files)
    assert said.startswith(f"{REPO}: the connection to {hub.endpoint} failed (")
    assert said.endswith("); the Hub has confirmed 1 commit; the same command sends the rest")
    assert set(hub.files("model", REPO)) == {".gitattributes", "saemake.yaml"}
    asked = len(hub.requests)
    again = planned(files)
    assert [file.path for file in again.of("unchanged")] == ["saemake.yaml"]
    push(again)
    assert len(hub.files("model", REPO)) == 6
    # Its weights had arrived before the commit was lost.
    assert not any(method == "PUT" for method, _, _ in hub.requests[asked:])


def test_a_connection_that_is_lost_in_an_upload_is_one_line(hub, files, monkeypatch):
    # The client tries again for half a minute.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.drop("/cdn/upload", 3, times=None)
    assert "the Hub has confirmed 1 commit; the same command sends the rest" in refused(files)
    hub.mend()
    push(planned(files))
    assert hub.files("model", REPO)["L3/k_4/ae.pt"] == b"weights"


@pytest.mark.parametrize("offline", [False, True])
def test_a_plan_without_a_network_speaks_of_no_push(hub, monkeypatch, offline):
    if offline:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        message = "HF_HUB_OFFLINE is set, so the Hub was not asked; unset it and run"
    else:
        hub.answer("/api/models", 500, times=None)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        message = r"the Hub says 500 \(.*\); run the same command again$"
    with pytest.raises(SaemakeError, match=message) as caught:
        look(REPO)
    assert "commit" not in str(caught.value)


def test_without_a_token(hub, files, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    said = refused(files)
    assert said.startswith(f"{REPO} cannot be written: you are not logged in; make a token that")
    assert f"{hub.endpoint}/settings/tokens" in said
    assert "type `hf auth login`" in said
    assert not sent(hub, 0)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("token", ["hf_reads", "hf_wrong"])
def test_without_the_right_to_write(hub, files, monkeypatch, exists, token):
    if exists:
        push(planned(files[-2:]))
    hub.grant("hf_reads", "other")
    monkeypatch.setenv("HF_TOKEN", token)
    before = hub.commits("model", REPO)
    said = refused(files)
    assert f"{REPO} cannot be written: the Hub says 40" in said
    assert "type `hf auth login`" in said
    assert token not in said
    assert hub.commits("model", REPO) == before


def test_a_repository_that_the_token_does_not_see_is_not_made_again(hub, files):
    hub.answer("/api/repos/create", 409)
    assert f"{REPO} exists on the Hub, but your token may not see it" in refused(files)
    assert hub.commits("model", REPO) == []


def test_a_change_on_the_hub_in_the_middle_is_not_overwritten(hub, files):
    push(planned(files[-2:]))
    looked = planned(files)
    hub.commit("model", REPO, {"L3/k_4/ae.pt": b"theirs"})
    with pytest.raises(SaemakeError, match="was changed during the push"):
        push(looked)
    assert hub.files("model", REPO)["L3/k_4/ae.pt"] == b"theirs"


def test_a_busy_hub_is_one_line(hub, files):
    hub.answer("/commit/main", 500)
    assert f"{REPO}: the Hub says 500 (" in refused(files)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hf_xet.XetAuthenticationError("403"), r"cannot be written: 403; make a token"),
        (RuntimeError("data processing error"), r"connection to .* failed \(data processing"),
    ],
)
def test_what_xet_says_is_one_line(error, message):
    with pytest.raises(SaemakeError, match=message), talking(REPO, "page"):
        raise error


def test_a_file_here_that_cannot_be_read_is_no_matter_of_the_hub():
    with pytest.raises(PermissionError), talking(REPO, "page"):
        raise PermissionError(13, "Permission denied", "ae.pt")


def test_commits_are_of_bounded_size(tmp_path):
    sizes = {"a": 4, "b": 3, "c": 3, "d": 9, "e": 1, "f": 1, "g": 1}
    files = [File(path, tmp_path, size, path) for path, size in sizes.items()]
    found = batches(files, most_files=2, most_bytes=7)
    assert [[file.path for file in batch] for batch in found] == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e", "f"],
        ["g"],
    ]
