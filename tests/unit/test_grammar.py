"""The grammar of paths: reading and writing are inverse; anything else is refused in one line."""

import functools
import itertools
from dataclasses import replace

import pytest
from conftest import CONFIG_FILE, PROJECT, raw_config
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saemake import architectures, figures
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.config.config import MOST_LATENTS, Config
from saemake.llm.hookpoint import SITES, Hookpoint
from saemake.paths import catalogue, files, judged_by, tracer
from saemake.paths.artifacts import (
    Artifact,
    BaselinesFile,
    CheckpointsFile,
    ComparisonTable,
    DatasetFile,
    FetchedFile,
    FigureFile,
    HubFile,
    HubFolder,
    ModelFile,
    OwnFigureFile,
    PushFile,
    RepositoryFile,
    SaeFile,
    SetupFile,
    SweepTable,
    TokensFile,
    TracerFile,
)
from saemake.paths.grammar import parse
from saemake.paths.names import (
    PUBLISHED,
    RESULTS,
    SAELENS,
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    Subjects,
    Sweep,
)
from saemake.recipes.judging import setups

TRACED = Hookpoint.at(0, "mlp_in-mlp_out")
# So few experts that each has enough latents for every k below.
CHECKPOINTED = {
    "architectures": {
        "batch_top_k": {"checkpoints": [0.0, 0.1, 0.5]},
        "switch": {"experts": 2, "sweep": [8]},
    },
    "models": {"demo": {"architectures": {"switch": {"experts": 2, "sweep": [8]}}}},
    "figures": {"mine": {"sweeps": ["demo/L3/*"], "y": "sae_bench_core.mse"}},
}


@functools.cache
def project() -> Config:
    return read(raw_config(CHECKPOINTED), PROJECT, [CONFIG_FILE])


def _hookpoints(model: str, transcoders: bool = True) -> st.SearchStrategy[Hookpoint]:
    pairs = [*itertools.combinations(SITES, 2)] if transcoders else []
    return st.builds(
        Hookpoint.at,
        st.integers(0, project().models[model].layers - 1),
        st.sampled_from([*SITES, *map("-".join, pairs)]),
    )


def _sweeps(architecture: str) -> st.SearchStrategy[Sweep]:
    config = project()
    # Wide enough for every sweep, so that its table is an artifact too.
    counts = st.integers(1024, MOST_LATENTS).filter(lambda n: n not in config.widths.values())
    thousands = counts.filter(lambda n: n % 1024 == 0).map(lambda n: f"{n // 1024}k")
    widths = st.one_of(st.sampled_from(list(config.widths)), counts.map(str), thousands)
    widths = widths.filter(lambda name: not name.endswith("k") or _is_width(name))
    return st.sampled_from(list(config.models)).flatmap(
        lambda model: st.builds(
            Sweep,
            st.just(model),
            _hookpoints(model).filter(
                lambda hookpoint: architectures.get(architecture).stands_at(
                    transcoder=hookpoint.is_transcoder
                )
            ),
            st.just(architecture),
            widths,
        )
    )


def _is_width(name: str) -> bool:
    """`65k` names 65,536 in the config, not 66,560."""
    config = project()
    return name in config.widths or config.latents(name) not in config.widths.values()


def _sparsities(architecture: str) -> st.SearchStrategy[float]:
    if architectures.get(architecture).sparsity == "penalty":
        return st.floats(1e-9, 1e9, allow_nan=False)
    return st.integers(1, 512)


def _saes(kinds: list[str]) -> st.SearchStrategy[SaeName]:
    seeds = st.one_of(st.none(), st.integers(1, 2**63 - 1))
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.builds(SaeName, _sweeps(kind), _sparsities(kind), seeds)
    )


@functools.cache
def artifacts() -> st.SearchStrategy[Artifact]:
    """Artifacts of every kind."""
    config = project()
    known = catalogue.load(config)
    kinds = list(config.architectures)
    models, entries = st.sampled_from(list(config.models)), st.sampled_from(known.entries)
    formats = st.sampled_from(files.FIGURE_FORMATS)
    placed = models.flatmap(lambda model: st.tuples(st.just(model), _hookpoints(model)))
    compared = models.flatmap(
        lambda model: st.tuples(st.just(model), _hookpoints(model, transcoders=False))
    )
    layered = models.flatmap(
        lambda model: st.tuples(st.just(model), st.integers(0, config.models[model].layers - 1))
    )
    drawn = placed.flatmap(
        lambda place: st.builds(
            FigureFile,
            st.just(RESULTS),
            st.just(place[0]),
            st.just(place[1]),
            st.sampled_from(files.figures_on_demand(config, place[0])),
            formats,
        )
    )
    set_up = layered.flatmap(
        lambda place: st.sampled_from(config.sae_bench_evaluations).map(
            lambda name: SetupFile(setups(config, *place, name)[0])
        )
    )
    swept = st.sampled_from(kinds).flatmap(_sweeps)
    checkpoints = [*files.checkpoint_files(config, "demo", "batch_top_k"), *files.tables(config)]
    published = st.sampled_from(known.sweeps())
    return st.one_of(
        set_up,
        st.builds(DatasetFile, st.sampled_from(list(config.datasets))),
        st.builds(FetchedFile, models),
        st.builds(FetchedFile, entries.map(lambda entry: entry.model), st.just(True)),
        st.builds(ModelFile, models),
        st.builds(TokensFile, models, st.sampled_from(files.uses(config))),
        st.builds(
            BaselinesFile,
            compared.map(lambda place: Baselines(*place)),
            st.sampled_from(files.baseline_files(config)),
        ),
        drawn,
        st.builds(SweepTable, swept),
        st.builds(
            SaeFile, st.just(RESULTS), _saes(kinds), st.sampled_from(files.sae_files(config))
        ),
        st.builds(SaeFile, st.just(SAELENS), _saes(kinds), st.sampled_from(files.SAELENS_FILES)),
        _saes([kind for kind in kinds if architectures.get(kind).transcodes]).flatmap(
            lambda sae: st.builds(
                TracerFile,
                st.just(replace(sae, sweep=replace(sae.sweep, hookpoint=TRACED))),
                st.sampled_from(tracer.tracer_files(config, sae.model)),
            )
        ),
        st.builds(
            CheckpointsFile,
            _saes(["batch_top_k"]).filter(lambda sae: sae.model == "demo").map(Checkpoints),
            st.sampled_from([file.removeprefix("checkpoints/") for file in checkpoints]),
        ),
        entries.flatmap(
            lambda entry: st.builds(
                HubFile,
                st.just(entry.hub_folder),
                st.just(known.name(entry)),
                st.sampled_from(files.hub_files(config, known.name(entry))),
            )
        ),
        st.builds(HubFolder, entries.map(lambda entry: entry.hub_folder)),
        st.builds(HubFolder, entries.map(lambda entry: f"hub/{entry.repository}")),
        st.builds(OwnFigureFile, st.just("mine"), formats),
        st.builds(RepositoryFile, entries.map(lambda entry: entry.repository)),
        st.builds(
            SaeFile,
            st.just(PUBLISHED),
            entries.map(known.name),
            st.sampled_from(files.published_files(config)),
        ),
        st.builds(ComparisonTable, published),
        published.flatmap(
            lambda sweep: st.builds(
                FigureFile,
                st.just(PUBLISHED),
                st.just(sweep.model),
                st.just(sweep.hookpoint),
                st.sampled_from(list(figures.PUBLISHED)),
                formats,
            )
        ),
        st.builds(
            PushFile,
            st.sampled_from(["me/saes", "org-1/a.b_c"]),
            models,
            st.sampled_from(files.PUSH_FILES),
        ),
    ).filter(_can_be_judged)


def _can_be_judged(artifact: Artifact) -> bool:
    """Not a file of an evaluation of SAE Bench that cannot judge its subject."""
    match artifact:
        case SaeFile(top, sae, file):
            subjects: Subjects = PublishedSweep(sae.sweep) if top == PUBLISHED else sae
        case CheckpointsFile(subjects, file) | BaselinesFile(subjects, file):
            pass
        case SetupFile(setup):
            subjects = Baselines(setup.model, Hookpoint(setup.layer))
            file = f"{setup.evaluation}.json"
        case FigureFile(top, model, hookpoint, figure):
            subjects = Baselines(model, hookpoint)
            file = f"{figures.get(figure).evaluation if top == RESULTS else ''}.json"
        case _:
            return True
    name = files.evaluation_in(project(), file)
    return name is None or judged_by.why_not(project(), subjects, name) is None


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.deferred(lambda: artifacts()))
def test_reading_and_writing_are_inverse(artifact: Artifact) -> None:
    path = str(artifact)
    assert parse(project(), path) == artifact
    assert str(parse(project(), path)) == path


def _refused(path: str) -> str:
    with pytest.raises(SaemakeError) as raised:
        parse(project(), path)
    said = str(raised.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.deferred(lambda: artifacts()), st.data())
def test_a_changed_path_is_another_artifact_or_is_refused(artifact: Artifact, data) -> None:
    """One character is taken out, put in or changed. What is read then is written the same."""
    path = str(artifact)
    place = data.draw(st.integers(0, len(path) - 1))
    new = data.draw(st.sampled_from(["", *"abk_/.-L0137"]))
    width = data.draw(st.integers(0, 1))
    changed = path[:place] + new + path[place + width :]
    assume(changed != path)
    found = _parsed(changed)
    if found is None:
        _refused(changed)
    else:
        assert str(found) == changed.rstrip("/")


def _parsed(path: str) -> Artifact | None:
    try:
        return parse(project(), path)
    except SaemakeError:
        return None


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.text("abkL_.0123456789-", max_size=8), max_size=8).map("/".join))
def test_paths_that_are_none_are_refused_in_one_line(below: str) -> None:
    for top in ("results", "hub", "published", "saelens", "published-to", "fetched"):
        _refused(f"{top}/{below}")


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("results/demo/L3/top_k/1k/k_24/metric.json", "metrics.json"),
        ("results/demo/L3/topk/1k/k_24/metrics.json", "top_k"),
        ("results/dmo/L3/top_k/1k/k_24/metrics.json", "demo"),
        ("results/demo/L3/top_k/1k/k_24/seed_3/ea.pt", "ae.pt"),
        ("results/demo/L3/baselines/pca.safetensor", "pca.safetensors"),
        ("results/demo/L3/figures/loss_recovered_v_l0.pdf", "loss_recovered_vs_l0"),
        ("saelens/demo/L3/top_k/1k/k_24/cfg.jsn", "cfg.json"),
        ("published/gemma-2-2b/L12/top_k/16k/k_81/ae.pt", "gemma-2-2b/L12/top_k/16k/k_80"),
        ("published-to/me/saes/demo/plan.tx", "plan.txt"),
        ("results/demo/L3.atn_out/top_k/1k/k_24/ae.pt", "attn_out"),
        ("results/demo/L3.resid_post/top_k/1k/k_24/ae.pt", "L3"),
        ("results/demo/L3.mlp_out-mlp_in/top_k/1k/k_24/ae.pt", "mlp_in-mlp_out"),
        ("saelens/demo/L3.mlp_inn/top_k/1k/k_24/cfg.json", "mlp_in"),
        ("fetched/gemma-2-2b.json", "gemma-2-2b.ok"),
        ("fetched/gema-2-2b.ok", "gemma-2-2b"),
        ("fetched/gemma-2-2b/publish.ok", "gemma-2-2b/published.ok"),
    ],
)
def test_the_nearest_valid_name_is_told(path: str, nearest: str) -> None:
    assert f"'{nearest}'" in _refused(path)


def test_a_site_has_what_can_be_made_of_it() -> None:
    said = _refused("results/demo/L9.attn_out/top_k/1k/metrics.json")
    assert said.endswith("demo has layers L0 to L5, not L9")
    said = _refused("results/demo/L3.attn_out/top_k/1k/k_24/sae_bench_tpp.json")
    assert said.endswith(
        "SAE Bench reads the residual stream after a block (resid_post), and this is attn_out"
    )
    said = _refused("results/demo/L3.mlp_in-mlp_out/baselines/metrics.json")
    assert said.endswith("the site that it writes: results/demo/L3.mlp_out/baselines/metrics.json")


def test_widths_by_number() -> None:
    config = project()
    assert [config.latents(name) for name in ("2k", "24k", "3072", "65k")] == [
        2048,
        24_576,
        3072,
        65_536,
    ]
