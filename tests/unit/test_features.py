"""The page of an SAE: what is computed by hand and by plain loops, what is written, bad input."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIG_FILE, PROJECT, raw_config
from transformers import OPTConfig, OPTForCausalLM
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from unit.test_architectures import make
from unit.test_evaluation import tokens, tokens_recipe

from saemake import architectures
from saemake.activations.dropping import Dropping
from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.config.checks import read
from saemake.evaluation import baselines
from saemake.features import gather, latents, lens, page, ranking, table, writing
from saemake.features import text as page_text
from saemake.features.tokens import TokenTexts
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel, load_tokenizer
from saemake.paths.asked_latents import asked_latents, check_asked_latents
from saemake.paths.names import SaeName, Sweep
from saemake.recipes import features as recipes
from saemake.recipes.features import FeaturesRecipe

CPU = torch.device("cpu")
SAE = SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 8)
DOCUMENTS = [[0, 5, 9, 12, 700, 3], [0, 44, 2], [0], [0, 8, 8, 1000, 31, 77, 90], [0, 6]]


class Relu(baselines.Linear):
    """Directions of norm 2, most latents 0. Activations are rounded, so that some are equal."""

    def __init__(self, width=24, d_model=128, bias=-0.6):
        generator = torch.Generator().manual_seed(1)
        rows_FD = torch.randn(width, d_model, generator=generator)
        rows_FD = 2 * torch.nn.functional.normalize(rows_FD, dim=-1)
        super().__init__(rows_FD, torch.zeros(d_model))
        self.bias = bias

    def encode(self, x):
        rounded = (super().encode(x) / 2).mul(4).round().div(4)
        return torch.relu(rounded + self.bias)


class Silent(Relu):
    """No latent ever fires."""

    def encode(self, x):
        return 0 * super().encode(x)


def recipe(**over):
    return FeaturesRecipe(
        **{
            "version": 1,
            "subject": "",
            "text": tokens_recipe(),
            "held_out": True,
            "batch_contexts": 2,
            "cpu_threads": 1,
            "tokens": 1000,
            "sample": 6,
            "contexts": 3,
            "window": 2,
            "latents": [],
            **over,
        }
    )


@pytest.fixture(scope="module")
def lm(demo_weights):
    return LanguageModel(demo_weights, Hookpoint(3), CPU, whole=False)


@pytest.fixture(scope="module")
def texts(demo_weights):
    return TokenTexts(load_tokenizer(demo_weights), "demo")


def capture(lm, folder, dropping=Dropping(), most=1000, documents=DOCUMENTS):  # noqa: B008
    return page_text.captured(lm, tokens(folder, documents), dropping, 2, most, "test")


def show(lm, texts, folder, codec, dropping=Dropping(), **over):  # noqa: B008
    text = capture(lm, folder, dropping)
    return gather.Shown(recipe(**over), codec, text, texts, lens.lens_of(lm, 2048), CPU)


@pytest.mark.parametrize(
    "dropping", [Dropping(), Dropping((0,)), Dropping((), 1.2)], ids=["all", "bos", "norms"]
)
@pytest.mark.parametrize("at_once", [1, 9, 4096])
def test_a_page_is_what_a_plain_loop_finds(lm, texts, tmp_path, monkeypatch, dropping, at_once):
    """Token by token, whatever is encoded together: top contexts with ties, densities, windows."""
    monkeypatch.setattr(recipes, "POSITIONS_AT_ONCE", at_once)
    codec = Relu()
    shown = show(lm, texts, tmp_path, codec, dropping, sample=24)
    rows = {row["latent"]: row for row in shown.rows()}
    values = {}  # by latent, context and position
    x_D, used = iter(shown.text.x_ND), iter(shown.text.kept_T.tolist())
    for context, document in enumerate(DOCUMENTS):
        for position, _ in enumerate(document):
            if next(used):
                for latent, value in enumerate(2 * codec.encode(next(x_D)[None])[0]):
                    values[latent, context, position] = round(value.item(), 4)
    positions = len(values) // codec.width
    assert next(x_D, None) is None
    assert positions == len(shown.text.x_ND)
    assert (positions < sum(map(len, DOCUMENTS))) == (dropping != Dropping())
    ties = 0
    for latent in range(codec.width):
        own = {place[1:]: value for place, value in values.items() if place[0] == latent}
        fired = [value for value in own.values() if value]
        assert (latent in rows) == bool(fired)
        if not fired:
            continue
        row, peaks = rows[latent], []
        for context in range(len(DOCUMENTS)):
            inside = [(-value, position) for (c, position), value in own.items() if c == context]
            if inside and min(inside)[0] < 0:
                value, position = min(inside)
                peaks.append((value, context, position))
        ties += len(peaks) - len({value for value, _, _ in peaks})
        found = [
            (-round(each["activation"], 4), each["context"], each["position"])
            for each in row["contexts"]
        ]
        assert found == sorted(peaks)[:3]
        assert row["fired"] == len(fired)
        assert row["density"] == len(fired) / positions
        assert row["largest"] == pytest.approx(max(fired), abs=1e-4)
        assert row["mean"] == pytest.approx(sum(fired) / len(fired), abs=1e-4)
        assert sum(row["histogram"]) == len(fired)
        for each in row["contexts"]:
            document, first = DOCUMENTS[each["context"]], max(each["position"] - 2, 0)
            window = document[first : each["position"] + 3]
            assert each["first"] == first
            assert each["tokens"] == texts.of(window)
            expected = [own.get((each["context"], first + at)) for at in range(len(window))]
            assert each["activations"] == pytest.approx(expected, abs=1e-4)
    assert ties > 0
    summary = shown.summary("")
    assert summary.dead == codec.width - len(rows)
    assert summary.l0 == sum(map(bool, values.values())) / positions


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_fires_where_it_encodes(name):
    """Whether it lists its latents or encodes all of them."""
    dictionary, generator = make(name).dictionary, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.normal_(generator=generator)
    x_ND = torch.randn(12, 16, generator=generator)
    kept = torch.ones(12, dtype=torch.bool)
    captured = page_text.Captured(torch.arange(12), kept, x_ND, torch.tensor([0, 5, 5, 12]))
    with torch.no_grad():
        expected = dictionary.encode(x_ND) * dictionary.decoder_rows.norm(dim=-1)
    found = latents.activations_of(dictionary, captured, CPU, torch.arange(64))
    torch.testing.assert_close(found.T, expected)
    seen = latents.seen(dictionary, captured, CPU, 4)
    assert seen.fired_F.equal((expected != 0).sum(dim=0))
    assert seen.fired_F.any()
    for context, (start, end) in {0: (0, 5), 2: (5, 12)}.items():
        peak_F, place_F = expected[start:end].max(dim=0)
        for latent in (peak_F > 0).nonzero()[:, 0].tolist():
            at = seen.peaks.contexts[latent].tolist().index(context)
            assert seen.peaks.values[latent, at].item() == pytest.approx(peak_F[latent].item())
            assert seen.peaks.positions[latent, at] == place_F[latent]
    assert not seen.peaks.values[seen.peaks.contexts == 1].any()


def test_lens_and_nearest_are_what_plain_loops_find(lm, texts, tmp_path):
    codec = Relu()
    row = show(lm, texts, tmp_path, codec).rows()[0]
    unit_FD = codec.decoder_rows / 2
    direction_D = unit_FD[row["latent"]]
    model = lm.model
    gain_D = model.gpt_neox.final_layer_norm.weight
    written_D = (direction_D - direction_D.mean()) * gain_D
    logit_V = model.get_output_embeddings().weight @ written_D
    logit_V = logit_V - logit_V.mean()
    ranked = sorted(range(2048), key=lambda token: -logit_V[token].item())
    for key, best in (("promoted", ranked[:10]), ("suppressed", ranked[:-11:-1])):
        assert [token["id"] for token in row[key]] == best
        assert [token["token"] for token in row[key]] == texts.of(best)
        logits = [token["logit"] for token in row[key]]
        assert logits == pytest.approx(logit_V[best].tolist(), abs=1e-5)
    cosine_F = [(unit_FD[other] @ direction_D).item() for other in range(codec.width)]
    others = sorted(range(codec.width), key=lambda other: -cosine_F[other])
    assert others[0] == row["latent"]
    assert [other["latent"] for other in row["nearest"]] == others[1:9]
    cosines = [other["cosine"] for other in row["nearest"]]
    assert cosines == pytest.approx([cosine_F[other] for other in others[1:9]], abs=1e-6)


def test_lens_is_the_derivative_of_the_logits(lm):
    """Of the LM's own norm and head, times the deviation that the norm divides by, in a direction
    that does not change it."""
    generator = torch.Generator().manual_seed(0)
    x_D, d_D = torch.randn(2, 128, generator=generator)
    x_D, d_D = x_D - x_D.mean(), d_D - d_D.mean()
    d_D = d_D - x_D * (d_D @ x_D) / (x_D @ x_D)
    norm, head = lm.final_norm.double(), lm.model.get_output_embeddings().double()
    try:
        step = 1e-5
        moved, still = (head(norm(x.double())) for x in (x_D + step * d_D.double(), x_D))
        change_V = (moved - still) / step * x_D.double().std(correction=0)
    finally:
        norm.float(), head.float()
    expected_V = change_V - change_V.mean()
    torch.testing.assert_close(
        lens.lens_of(lm, 2048).logits(d_D[None])[0].double(), expected_V, rtol=0, atol=1e-3
    )


def test_scale_of_each_kind_of_norm():
    weight = torch.linspace(0.5, 2, 6)
    lm = SimpleNamespace(d_model=6, dtype=torch.float32, device=CPU)
    layer_norm, llama, gemma = torch.nn.LayerNorm(6), LlamaRMSNorm(6), Gemma2RMSNorm(6)
    plain = torch.nn.LayerNorm(6, elementwise_affine=False)
    with torch.no_grad():
        layer_norm.bias.fill_(3)
        for norm in (layer_norm, llama, gemma):
            norm.weight.copy_(weight)
    expected = [(layer_norm, weight, True), (plain, torch.ones(6), True)]
    expected += [(llama, weight, False), (gemma, 1 + weight, False)]
    for norm, scale, centred in expected:
        found, subtracts_mean = lens._scale(norm, lm)
        torch.testing.assert_close(found, scale, rtol=1e-5, atol=0)
        assert subtracts_mean == centred


def test_an_lm_whose_head_is_not_linear_has_no_lens(lm, texts, tmp_path):
    shown = gather.Shown(recipe(), Relu(), capture(lm, tmp_path), texts, None, CPU)
    rows, summary = shown.rows(), shown.summary("")
    assert summary.norm is None
    assert {len(row["promoted"]) for row in rows} == {0}
    assert "head is not one linear layer" in page.html(SAE, rows, summary, [SAE])


def test_equal_values_keep_their_order():
    values, columns = ranking.largest(torch.tensor([[1.0, 2.0, 1.0, 2.0]]), 3)
    assert columns.tolist() == [[1, 3, 0]]
    assert values.tolist() == [[2, 2, 1]]


def test_nearest_by_hand_and_in_parts(monkeypatch):
    rows_FD = torch.tensor([[1.0, 0], [0, 5], [3, 3], [-1, 0]])
    monkeypatch.setattr(ranking, "RANKED_AT_ONCE", 4)
    cosines, latents_ = ranking.nearest(rows_FD, torch.tensor([0, 3]), 2)
    assert latents_.tolist() == [[2, 1], [1, 2]]
    torch.testing.assert_close(cosines, torch.tensor([[0.5**0.5, 0], [0, -(0.5**0.5)]]))
    assert ranking.nearest(rows_FD[:1], torch.tensor([0]), 8)[1].tolist() == [[]]


def test_histogram_by_hand():
    counts, largest = latents.histogram(torch.tensor([0.0, 1.0, 2.0, 2.5, 4.0, -3.0]), 4)
    assert (counts, largest) == ([0, 1, 2, 1], 4)
    assert latents.histogram(torch.tensor([0.0, -1.0]), 2) == ([0, 0], 0)


def test_sample_is_spread_over_densities():
    fired = torch.tensor([0, 50, 10, 40, 10, 30, 20, 0])
    assert latents.sample(fired, 3, []) == [1, 2, 6]  # 10, 20 and 50
    assert latents.sample(fired, 6, [0]) == [0, 1, 2, 3, 4, 5, 6]
    assert latents.sample(fired, 0, [7, 0]) == [0, 7]
    assert latents.sample(fired * 0, 3, []) == []


def test_decades_by_hand():
    """Of 1,000 positions: 1 and 9 in the lowest decade, 10 in the next, 100 and 1,000 above."""
    fired = torch.tensor([0, 1, 9, 10, 100, 1000])
    assert gather.decades(fired, 1000) == (-3, [2, 1, 2])
    assert gather.decades(torch.tensor([1]), 1) == (-1, [1])


def test_contexts_that_begin_within_the_tokens_are_read(tmp_path):
    def lengths(most):
        batches = page_text.beginning(tokens(tmp_path, DOCUMENTS), 2, most)
        return [batch.mask.sum(dim=1).tolist() for batch in batches]

    assert lengths(6) == [[6]]
    assert lengths(7) == [[6, 3]]
    assert lengths(10) == [[6, 3], [1]]
    assert lengths(99) == [[6, 3], [1, 7], [2]]


def test_an_sae_that_never_fires_has_a_page_that_says_so(lm, texts, tmp_path):
    shown = show(lm, texts, tmp_path, Silent(), latents=[5], held_out=False)
    summary = shown.summary("bos")
    written = page.html(SAE, shown.rows(), summary, [SAE])
    assert (summary.dead, summary.l0) == (24, 0)
    assert "No latent fired on this text" in written
    assert "It never fired on this text" in written
    assert "(not held out)" in written
    shown = show(lm, texts, tmp_path, Silent())
    assert shown.rows() == []
    assert "<article" not in page.html(SAE, [], summary, [SAE])


def test_a_latent_that_is_never_above_0_has_no_contexts(lm, texts, tmp_path):
    class Negative(Relu):
        def encode(self, x):
            return -super().encode(x)

    shown = show(lm, texts, tmp_path, Negative())
    rows = shown.rows()
    assert rows
    assert all(row["fired"] and row["contexts"] == [] for row in rows)
    assert "above 0 nowhere" in page.html(SAE, rows, shown.summary(""), [SAE])


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</style><b>",
    "&lt;i&gt;",
    "\u202egnp\n\t\x1b[31m",
]


def hostile_page(lm, texts, folder):
    shown = show(lm, texts, folder, Relu())
    rows = shown.rows()
    for at, row in enumerate(rows):
        bad = HOSTILE[at % len(HOSTILE)]
        for token in row["promoted"] + row["suppressed"]:
            token["token"] = bad
        for context in row["contexts"]:
            context["tokens"] = [bad] * len(context["tokens"])
    summary = shown.summary("<b>")
    return rows, page.html(SAE, rows, summary, [SAE, replace(SAE, sparsity=16, seed=3)])


def test_hostile_tokens_are_text(lm, texts, tmp_path):
    rows, written = hostile_page(lm, texts, tmp_path)
    parsed = Elements()
    parsed.feed(written)
    assert parsed.tags.count("script") == parsed.tags.count("style") == 1
    assert not {"img", "b", "i"} & set(parsed.tags)
    assert not [name for name in parsed.attributes if name.startswith("on") or name == "style"]
    shown = "".join(parsed.text)
    for bad in HOSTILE[:4]:
        assert bad in shown
    assert "\\u202egnp↵⇥\\u001b[31m" in shown
    assert not set("\u202e\x1b") & set(written)
    assert len(rows) == parsed.tags.count("article")
    # Nothing but links to pages beside it, and within the page.
    links = re.findall(r'(?:href|src)="([^"]*)"', written)
    others = {link for link in links if not link.startswith("#latent")}
    assert others == {"data:,", "../k_16/seed_3/features.html"}


def test_the_page_of_another_seed_links_from_its_own_folder(lm, texts, tmp_path):
    summary = show(lm, texts, tmp_path, Silent()).summary("")
    seeded = replace(SAE, seed=3)
    written = page.html(seeded, [], summary, [SAE, seeded])
    assert 'href="../../k_8/features.html"' in written
    assert "<dt>Seed</dt><dd>3</dd>" in written


def test_tokens_by_themselves():
    written = [writing.in_list(token) for token in (" the", "\n\n", "  ", "a b ", "")]
    assert written == ["␣the", "↵↵", "␣␣", "a b␣", ""]
    shares = [writing.percent(share) for share in (0, 1e-5, 0.0123, 0.5, 1)]
    assert shares == ["0 %", "0.001 %", "1.2 %", "50 %", "100 %"]


class Spelling:
    """As much of a tokenizer as is asked."""

    names = ("<bos>", "\u2581the", "##ing", "Ġ\u00e2", "<0x0A>")
    decoded = ("<bos>", "the", "##ing", " \ufffd", "")

    def convert_ids_to_tokens(self, token):
        return self.names[token] if token < len(self.names) else None

    def decode(self, ids, clean_up_tokenization_spaces):
        assert not clean_up_tokenization_spaces
        return self.decoded[ids[0]]


def test_texts_of_tokens():
    shown = TokenTexts(Spelling(), "mine").of([0, 1, 2, 3, 4])
    assert shown == ["<bos>", " the", "##ing", "Ġ\u00e2", "<0x0A>"]


@pytest.mark.parametrize("broken", ["unknown", "raises"])
def test_a_tokenizer_that_cannot_show_tokens_is_refused_before_the_lm_runs(
    broken, demo_weights, tmp_path, monkeypatch
):
    class Broken(Spelling):
        def decode(self, ids, clean_up_tokenization_spaces):
            raise NotImplementedError("no decoder")

    tokenizer = Spelling() if broken == "unknown" else Broken()
    monkeypatch.setattr(gather, "load_tokenizer", lambda weights: tokenizer)
    monkeypatch.setattr(gather, "LanguageModel", None)
    wanted = gather.Wanted("demo/L3/x", recipe(), "", lambda device: Relu())
    with pytest.raises(SaemakeError, match=r"model 'demo': its tokenizer cannot show token.*put"):
        gathered([wanted], demo_weights, tmp_path)


def gathered(wanted, demo_weights, folder, dropping=Dropping()):  # noqa: B008
    store = Store(folder / "store", "features")
    read_ = tokens(folder, DOCUMENTS)
    gather.gather(wanted, Hookpoint(3), demo_weights, read_, dropping, store, "all")
    return store


def test_what_is_gathered_is_the_same_each_time_and_read_back(demo_weights, tmp_path):
    contents, loaded = [], []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        wanted = gather.Wanted("demo/L3/x", recipe(), "", lambda device: Relu())
        store = gathered([wanted], demo_weights, folder)
        contents.append(store.read(wanted.key, "features.parquet"))
        again = replace(wanted, load=lambda device: loaded.append(device))
        gathered([again], demo_weights, folder)
    assert contents[0] == contents[1]
    assert loaded == []
    rows, summary = table.read(store.folder / wanted.key / "features.parquet")
    assert summary.latents == 24
    assert summary.positions == summary.tokens == 19
    assert table.content(rows, summary) == contents[0]
    (tmp_path / "damaged.parquet").write_bytes(contents[0][:-9])
    with pytest.raises(SaemakeError, match=r"damaged\.parquet: cannot be read"):
        table.read(tmp_path / "damaged.parquet")


def test_text_of_which_everything_is_left_out_is_refused(demo_weights, tmp_path):
    ids = sorted({token for document in DOCUMENTS for token in document})
    wanted = gather.Wanted("demo/L3/x", recipe(), "", lambda device: Relu())
    with pytest.raises(SaemakeError, match="all 19 positions of the text are left out"):
        gathered([wanted], demo_weights, tmp_path, Dropping(ids))


def configured(latents_):
    return read(raw_config({"features": {"latents": latents_}}), PROJECT, [CONFIG_FILE])


def test_latents_that_the_config_asks_for():
    config = configured({str(SAE): [9, 3, 9]})
    check_asked_latents(config)
    assert asked_latents(config, SAE) == [3, 9]
    other = replace(SAE, sparsity=16)
    plain = configured({})
    assert recipes.features_recipe(config, SAE).latents == [3, 9]
    assert recipes.features_recipe(config, other) == recipes.features_recipe(plain, other)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"demo/L3/top_k/1k/k_8": [3, 1024]}, "has no latent 1024: its width 1k has latents 0 to"),
        ({"demo/L3/top_k/1k/k_08": [3]}, "no SAE of that name: .*k_8"),
        ({"demo/L9/top_k/1k/k_8": [3]}, "no SAE of that name: demo has layers L0 to L5"),
        ({"demo/L3/top_k/1k": [3]}, "no SAE of that name"),
    ],
)
def test_a_latent_that_no_sae_has_is_refused(asked, words):
    (name,) = asked
    with pytest.raises(SaemakeError, match=f"'features.latents.{name}': .*{words}"):
        check_asked_latents(configured(asked))


def test_a_negative_latent_is_refused():
    with pytest.raises(SaemakeError, match=r"features\.latents.*greater than or equal to 0"):
        configured({"demo/L3/top_k/1k/k_8": [-1]})


def test_an_opt_models_final_norm_is_before_its_blocks():
    config = OPTConfig(
        vocab_size=32, hidden_size=8, num_hidden_layers=2, ffn_dim=16, num_attention_heads=2
    )
    lm = LanguageModel.__new__(LanguageModel)
    lm.model = OPTForCausalLM(config)
    lm._blocks_name = "model.decoder.layers"
    assert lm.final_norm is lm.model.model.decoder.final_layer_norm


def test_an_id_that_the_tokenizer_does_not_use_is_shown_by_its_number(demo_weights):
    tokenizer = load_tokenizer(demo_weights)
    unused = len(tokenizer) + 5
    assert TokenTexts(tokenizer, "demo").of([unused], of_text=False) == [f"#{unused}"]
    with pytest.raises(SaemakeError, match=f"cannot show token {unused}, which the text has"):
        TokenTexts(tokenizer, "demo").of([unused])
