"""The sites of a block, in every family that is named in the docs: captures are those of a plain
hook on the module that the family's own code has there, and what is replaced is what the block
adds."""

import pytest
import torch
from site_families import FAMILIES, OF_ALL, D, Family
from transformers import OPTConfig
from unit.test_evaluation import recipe as evaluation_recipe
from unit.test_evaluation import tokens as text_of

from saemake.base.errors import SaemakeError
from saemake.evaluation.baselines import Linear
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import SITES, Hookpoint
from saemake.text.shards import Contexts


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return Family(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def contexts():
    ids_BL = torch.randint(1, 256, (3, 9), generator=torch.Generator().manual_seed(1))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, 5:] = 0
    return Contexts(ids_BL, mask_BL)


@pytest.mark.parametrize("layer", [0, 2])
def test_captures_are_those_of_plain_hooks_to_the_bit(family, contexts, layer):
    _, expected = family.run(contexts, layer)
    lm = family.lm(Hookpoint(layer), whole=False)
    there = [Hookpoint(layer, site) for site in family.places]
    found = lm.captures(contexts, there)
    assert set(found) == set(there)
    for hookpoint in there:
        assert found[hookpoint].equal(expected[hookpoint.read]), hookpoint
        assert lm.captures(contexts, [hookpoint])[hookpoint].equal(found[hookpoint]), hookpoint
    if "resid_mid" in family.places:
        mid = expected["resid_pre"] + expected["attn_out"]
        assert mid.equal(expected["resid_mid"])
    added = expected["resid_pre"] + expected["attn_out"] + expected["mlp_out"]
    torch.testing.assert_close(added, expected["resid_post"], atol=1e-5, rtol=1e-5)


def test_sites_of_several_layers_come_out_of_one_run(family, contexts):
    lm = family.lm(Hookpoint(2), whole=False)
    there = [Hookpoint(2, "attn_out"), Hookpoint(0, "mlp_out"), Hookpoint(1), Hookpoint(0)]
    found = lm.captures(contexts, there)
    for hookpoint in there:
        _, expected = family.run(contexts, hookpoint.layer)
        assert found[hookpoint].equal(expected[hookpoint.read])


@pytest.mark.parametrize("site", SITES)
def test_a_site_is_replaced_as_by_a_plain_hook(family, contexts, site):
    """Also where the LM begins with the block. What was there, put back, gives the same logits."""
    if site not in family.places:
        return
    lm = family.lm(Hookpoint(1, site))
    run = lm.run(contexts)
    clean, there = family.run(contexts, 1)
    assert run.read_BLD.equal(there[site])
    assert run.written_BLD is run.read_BLD
    assert torch.stack(list(run.logits)).equal(clean)
    put_in = torch.randn(there[site].shape, generator=torch.Generator().manual_seed(2))
    for replacement in (there[site], torch.zeros_like(put_in), put_in):
        expected, _ = family.run(contexts, 1, (site, replacement))
        for before_BLD in (run.before_BLD, None):
            found = torch.stack(list(lm.run_with(contexts, replacement, before_BLD)))
            assert found.equal(expected)
        assert found.equal(clean) == (replacement is there[site])


def test_an_identity_recovers_all_and_zeros_nothing(family, tmp_path):
    """Exactly, at every site, by the evaluation that SAEs are judged by."""
    text = text_of(tmp_path, [[0, 5, 9, 12, 70, 3], [0, 8, 8, 100, 31]])
    identity = Linear(torch.eye(D), torch.zeros(D))
    zeros = Linear(torch.zeros(D, D), torch.zeros(D))
    for site in family.places:
        lm = family.lm(Hookpoint(1, site))
        codecs = {"identity": identity, "zeros": zeros}
        found = judge_by(evaluation_recipe(), codecs, lm, text, "test")
        recovered = {key: each.figures["frac_recovered"] for key, each in found.items()}
        assert recovered == {"identity": 1.0, "zeros": 0.0}, site


def test_a_transcoder_reads_one_site_and_writes_another(family, contexts):
    transcoder, mlp = (family.lm(Hookpoint.at(1, name)) for name in ("mlp_in-mlp_out", "mlp_out"))
    run = transcoder.run(contexts)
    _, there = family.run(contexts, 1)
    assert run.read_BLD.equal(there["mlp_in"])
    assert run.written_BLD.equal(there["mlp_out"])
    assert transcoder.capture(contexts).equal(there["mlp_in"])
    zeros = torch.zeros_like(run.written_BLD)
    found = torch.cat(list(transcoder.run_with(contexts, zeros, run.before_BLD)))
    assert found.equal(torch.cat(list(mlp.run_with(contexts, zeros))))


def test_a_run_stops_at_what_is_wanted_last(family, contexts):
    lm = family.lm(Hookpoint(2), whole=False)
    blocks = lm.model.get_submodule(lm._blocks_name)
    lm.captures(contexts, [Hookpoint(1, "attn_out")])  # finds it
    run = []
    for number, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, number=number: run.append(number))
    mlp = family.places["mlp_out"][0]
    blocks[1].get_submodule(mlp).register_forward_hook(lambda *_: run.append("mlp"))
    lm.captures(contexts, [Hookpoint(1, "attn_out")])
    assert run == [0]
    lm.captures(contexts, [Hookpoint(1, "resid_pre")])
    assert run == [0, 0]


def test_a_site_that_a_model_lacks_is_refused(family, contexts):
    if "resid_mid" in family.places:
        return
    with pytest.raises(SaemakeError) as error:
        family.lm(Hookpoint(1, "resid_mid"), whole=False).capture(contexts)
    assert str(error.value) == (
        "model 'mine' has no resid_mid in its block 1 (its attention and MLP read the same residual"
        " stream, and none lies between them); its sites are resid_pre, attn_out, mlp_in, mlp_out,"
        " resid_post"
    )


def test_norms_after_the_addition_leave_no_site_within_the_block(tmp_path, contexts, monkeypatch):
    """OPT 350M normalises the residual stream itself."""
    config = OPTConfig(
        **OF_ALL,
        ffn_dim=48,
        word_embed_proj_dim=D,
        max_position_embeddings=64,
        do_layer_norm_before=False,
    )
    monkeypatch.setitem(FAMILIES, "opt 350m", (config, {}))
    lm = Family("opt 350m", tmp_path).lm(Hookpoint(1, "mlp_out"))
    with pytest.raises(SaemakeError, match=r"no mlp_out in its block 1 .*resid_pre, resid_post$"):
        lm.run(contexts)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("L3.resid_post", "'L3.resid_post': did you mean 'L3'? resid_post is not spelt"),
        ("L3.atn_out", "no site 'atn_out' in a block; did you mean 'attn_out'?"),
        ("L3.mlp_in-mlpout", "no site 'mlpout' in a block; did you mean 'mlp_out'?"),
        (
            "L3.mlp_out-mlp_in",
            "'mlp_out-mlp_in' writes a site before the one that it reads; did"
            " you mean 'mlp_in-mlp_out'?",
        ),
        (
            "L3.mlp_in-mlp_in",
            "'mlp_in-mlp_in' writes the site that it reads; an SAE of that site is 'mlp_in'",
        ),
        (
            "L03.mlp_in",
            "'L03.mlp_in' is not a layer; layers are L0, L1, ..., and their other sites"
            " L0.attn_out, L0.mlp_in-mlp_out, ...",
        ),
    ],
)
def test_a_misspelt_hookpoint_is_refused(name, said):
    with pytest.raises(SaemakeError) as error:
        Hookpoint.named(name)
    assert str(error.value) == said
