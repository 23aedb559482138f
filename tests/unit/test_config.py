import re

import pytest
import yaml
from conftest import CONFIG_FILE, PROJECT, merged, raw_config

from saemake import architectures, evaluation
from saemake.activations.drop_settings import TrainingDrop
from saemake.architectures.training_settings import Training
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.config.sections import (
    Baselines,
    Dataset,
    Device,
    Features,
    Logging,
    Model,
    OwnFigure,
    Passes,
    Published,
    Publishing,
    SharedStore,
    Slurm,
    Snapshots,
    Suite,
    Text,
    Tolerances,
    Wandb,
)
from saemake.evaluation.sae_bench.autointerp import Judge
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.shape import Shape
from saemake.paths.names import Sweep
from saemake.paths.sweeps import members

GEMMA = raw_config()["models"]["gemma-2-2b"]


def said(over, tmp_path=None):
    """The one line that a config with `over` laid over it is refused with."""
    files = [CONFIG_FILE]
    if tmp_path is not None:
        mine = tmp_path / "mine.yaml"
        mine.write_text(yaml.safe_dump(over))
        files.append(mine)
    with pytest.raises(SaemakeError) as caught:
        read(raw_config(over), PROJECT, files)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_projects_config_says_the_published_recipe(config):
    gemma = config.models["gemma-2-2b"]
    training = config.training_of("gemma-2-2b")
    assert (gemma.hub, gemma.dtype, gemma.llm_batch_contexts) == (
        "google/gemma-2-2b",
        "bfloat16",
        4,
    )
    assert config.steps_of("gemma-2-2b") == 244_140
    assert training.learning_rate == 3e-4
    assert gemma.buffer_tokens == 244 * 1024
    top_k = config.settings_of("gemma-2-2b", "top_k")
    assert (top_k.sweep, top_k.threshold_beta) == ([20, 40, 80, 160, 320, 640], 0.999)
    assert config.settings_of("gemma-2-2b", "standard_new").sparsity_warmup_steps == 5000


def test_a_models_own_values_lie_over_the_shared_ones(config):
    assert config.training_of("demo").batch_tokens == 512
    assert config.training_of("demo").decay_start_fraction == 0.8
    assert config.settings_of("demo", "top_k").sweep == [2, 4, 8, 16, 32, 64]
    assert config.settings_of("demo", "top_k").auxk_alpha == 1 / 32


def test_yaml_exponents_without_a_dot_are_numbers():
    config = read(raw_config({"training": {"learning_rate": "7e-5"}}), PROJECT, [])
    assert config.training.learning_rate == 7e-5


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            {"models": {"gemma-2-2b": {"shape": {"d_modell": 5}}}},
            "'models.gemma-2-2b.shape.d_modell': unknown; did you mean 'd_model'?",
        ),
        ({"modles": {}}, "'modles': unknown; did you mean 'models'?"),
        ({"training": {"lerning_rate": 1}}, "'training.lerning_rate': unknown; did you mean"),
        (
            {"models": {"demo": {"train_token": 5}}},
            "'models.demo.train_token': unknown; did you mean 'train_tokens'?",
        ),
        (
            {"models": {"demo": {"training": {"batch_token": 5}}}},
            "'models.demo.training.batch_token': unknown; did you mean 'batch_tokens'?",
        ),
        (
            {"architectures": {"top_k": {"auxk_alfa": 5}}},
            "'architectures.top_k.auxk_alfa': unknown; did you mean 'auxk_alpha'?",
        ),
        (
            {"models": {"demo": {"architectures": {"top_k": {"seep": [1]}}}}},
            "'models.demo.architectures.top_k.seep': unknown; did you mean 'sweep'?",
        ),
        (
            {"models": {"demo": {"architectures": {"topk": {}}}}},
            "no architecture 'topk'; did you mean 'top_k'?",
        ),
        ({"architectures": {"top_q": {}}}, "no architecture 'top_q'; did you mean 'top_k'?"),
        ({"models": {"demo": {"text": "sotu"}}}, "'models.demo.text': no text 'sotu'"),
        ({"build": ["dmeo"]}, "'build': no model 'dmeo'; did you mean 'demo'?"),
        ({"models": {"demo": {"suite": {"layers": [6]}}}}, "demo has layers 0 to 5, not 6"),
        ({"models": {"demo": {"suite": {"widths": ["2k"]}}}}, "no width '2k'"),
        ({"training": {"batch_tokens": "many"}}, "'training.batch_tokens'.*not 'many'"),
        ({"training": {"batch_tokens": 2.5}}, "'training.batch_tokens'.*not 2.5"),
        ({"training": {"batch_tokens": 0}}, "'training.batch_tokens'.*greater than 0"),
        ({"training": {"learning_rate": "fast"}}, "'training.learning_rate'.*not 'fast'"),
        ({"models": {"demo": {"dtype": "float8"}}}, "'models.demo.dtype'.*'float32'"),
        ({"models": {"demo": {"hub": "a/b"}}}, "either 'folder' .* or 'hub'"),
        ({"models": {"de mo": {}}}, "models.de mo"),
        (
            {"architectures": {"top_k": {"sweep": [20, -1]}}},
            "'architectures.top_k.sweep.1'.*greater than 0",
        ),
        (
            {"models": {"demo": {"architectures": {"top_k": {"sweep": [2, 2000]}}}}},
            "models.demo.architectures.top_k.sweep': needs 2000 latents, more than the 1024 of",
        ),
        (
            {"models": {"demo": {"train_tokens": 100}}},
            "'models.demo.train_tokens': less than one batch",
        ),
        (
            {"models": {"demo": {"training": {"warmup_steps": 1000}}}},
            "demo.training.warmup_steps': 1000 steps.*too many: models.demo.train_tokens gives 976",
        ),
        (
            {"models": {"demo": {"training": {"warmup_steps": 900}}}},
            "demo.training.warmup_steps': 900.*do not end before.*decay_start_fraction 0.8",
        ),
        (
            {
                "models": {
                    "demo": {"architectures": {"standard_new": {"sparsity_warmup_steps": 900}}}
                }
            },
            "standard_new.sparsity_warmup_steps': 900.*do not end before.*decay_start_fraction 0.8",
        ),
        (
            {"architectures": {"standard": {"resample_steps": 100}}},
            "architectures.standard.resample_steps': .*training.decay_start_fraction to 1, not 0.8",
        ),
        (
            {
                "models": {
                    "demo": {
                        "training": {"decay_start_fraction": 0.7},
                        "architectures": {"p_anneal": {"resample_steps": 100}},
                    }
                }
            },
            "demo.architectures.p_anneal.resample_steps.*demo.training.decay_start_fraction.*0.7",
        ),
        (
            {"architectures": {"matryoshka_batch_top_k": {"group_fractions": [0.5, 0.4]}}},
            r"matryoshka_batch_top_k.group_fractions': must sum to 1, not 0.5 \+ 0.4 = 0.9",
        ),
        (
            {"architectures": {"matryoshka_batch_top_k": {"group_weights": [1.0, 2.0]}}},
            "top_k.group_weights': 2 weights, but group_fractions has 5",
        ),
        (
            {"architectures": {"p_anneal": {"p_start": 0.1}}},
            "p_anneal.p_end': 0.2 is above p_start",
        ),
        (
            {"architectures": {"p_anneal": {"anneal_end": 10_005}}},
            "n_sparsity_updates': 10 updates do not fit.*anneal_start 10000 and anneal_end 10005",
        ),
        ({"training": {"recipe": "saebnch"}}, "'training.recipe'.*'saebench' or 'dictionary_learn"),
        (
            {"evaluations": {"sae_bench_core": {"defects": "all"}}},
            "'evaluations.sae_bench_core.defects'.*'mended' or 'kept'",
        ),
        ({"evaluations": {"core": {}}}, "'evaluations.core': unknown.*sae_bench_core"),
        (
            {"models": {"demo": {"evaluations": {"sae_bench": {}}}}},
            "'models.demo.evaluations.sae_bench': no evaluation.*'sae_bench_",
        ),
        (
            {"models": {"demo": {"evaluations": {"dictionary_learning": {"documents": 0}}}}},
            "'models.demo.evaluations.dictionary_learning.documents'.*greater than 0",
        ),
        (
            {"models": {"demo": {"evaluations": {"sae_bench_core": {"text": "pil"}}}}},
            "'models.demo.evaluations.sae_bench_core.text': no text 'pil'.*'pile'",
        ),
        ({"models": {"demo": {"baselines": {"pca": 1}}}}, "'models.demo.baselines.pca': unknown"),
        (
            {"architectures": {"top_k": {"checkpoints": [0, 1.0]}}},
            "'architectures.top_k.checkpoints.1'.*less than 1",
        ),
        (
            {"models": {"demo": {"train_tokens": 102_400}}},
            "top_k.threshold_start_step': step 200 is too late: .*gives 200 .*models.demo.ar",
        ),
        ({"root": "/"}, "'root': unknown; known: "),
        ({"training": {"learning_rate": float("inf")}}, "'training.learning_rate'.*finite"),
        ({"training": {"seed": 2**64}}, "'training.seed'.*less than"),
        (
            {"architectures": {"top_k": {"sweep": [20, 40, 20]}}},
            "'architectures.top_k.sweep': 20 is there more than once",
        ),
        ({"models": {"pythia_70m-deduped": GEMMA}}, "differs from 'pythia-70m-deduped' in punct"),
        ({"models": {"demo": {"gguf_file": "lm.gguf"}}}, "models.demo.gguf_file': there is no lm"),
    ],
)
def test_bad_config_is_one_line(over, message):
    assert re.search(message, said(over))


def fits(over, architecture):
    """What members() of a sweep that no suite has is refused with."""
    config = read(raw_config(over), PROJECT, [CONFIG_FILE])
    with pytest.raises(SaemakeError) as caught:
        members(config, Sweep("demo", Hookpoint(3), architecture, "1k"))
    return str(caught.value)


def test_a_named_sweep_is_checked_as_those_of_the_suite():
    own = {"models": {"demo": {"architectures": {"p_anneal": {"anneal_start": 970}}}}}
    assert "p_anneal.anneal_start': step 980 is too late" in fits(own, "p_anneal")
    own = {"models": {"demo": {"architectures": {"jump_relu": {"sweep": [2000]}}}}}
    assert "jump_relu.sweep': needs 2000 latents" in fits(own, "jump_relu")
    groups = {"group_fractions": [0.9999, 0.0001]}
    own = {"models": {"demo": {"architectures": {"matryoshka_batch_top_k": groups}}}}
    assert "group_fractions': needs 10000 latents" in fits(own, "matryoshka_batch_top_k")
    own = {
        "models": {"demo": {"architectures": {"matryoshka_batch_top_k": {"k_anneal_steps": 975}}}}
    }
    assert "k_anneal_steps': step 975 is too late" in fits(own, "matryoshka_batch_top_k")


def test_checkpoints_are_at_the_published_steps():
    """146,484 steps: those of an older published suite, as its files are named."""
    fractions = raw_config()["models"]["gemma-2-2b"]["architectures"]["top_k"]["checkpoints"]
    own = {"train_tokens": 146_484 * 2_048}
    config = read(raw_config({"models": {"gemma-2-2b": own}}), PROJECT, [CONFIG_FILE])
    assert len(fractions) == 7
    assert config.checkpoint_steps("gemma-2-2b", "top_k") == [
        *(0, 146, 463, 1464, 4632, 14648, 46322)
    ]
    assert config.checkpoint_steps("demo", "top_k") == []


def test_the_file_that_says_the_key_is_named(tmp_path):
    assert said({"training": {"batch_tokens": -1}}, tmp_path).endswith("mine.yaml)")
    assert "config.yaml" not in said({"training": {"sede": 1}}, tmp_path)
    assert said({"architectures": {"top_k": {"sweep": [0]}}}, tmp_path).endswith("mine.yaml)")


def test_a_whole_number_is_a_name():
    over = {"widths": {512: 512}, "models": {"demo": {"suite": {"widths": ["1k", 512]}}}}
    config = read(raw_config(over), PROJECT, [CONFIG_FILE])
    assert config.widths["512"] == 512
    assert config.models["demo"].suite.widths == ["1k", "512"]
    assert len(members(config, Sweep("demo", Hookpoint(3), "top_k", "512"))) == 6


@pytest.mark.parametrize("name", [True, 1.5, None])
def test_another_key_than_a_name_is_refused_in_words(tmp_path, name):
    line = f"config key 'widths.{name}': YAML reads this name as {name}; put it in quotes ("
    assert said({"widths": {name: 512}}, tmp_path).startswith(line)
    assert said({"widths": {name: 512}}, tmp_path).endswith("mine.yaml)")


def test_a_fault_of_a_width_named_by_a_number_names_the_file(tmp_path):
    line = said({"widths": {512: -1}}, tmp_path)
    assert line.startswith("config key 'widths.512': input should be greater than 0, not -1 (")
    assert line.endswith("mine.yaml)")


def test_a_value_that_no_file_says_was_on_the_command_line():
    assert said({"training": {"seed": "x"}}).endswith("(--config)")


def test_a_misspelt_key_is_named_before_the_key_that_is_missing_for_it():
    figure = {"sweep": ["demo/L3/*"], "y": "sae_bench_core.mse"}
    assert "'figures.mine.sweep': unknown; did you mean 'sweeps'?" in said(
        {"figures": {"mine": figure}}
    )
    del figure["sweep"]
    assert "'figures.mine.sweeps': missing" in said({"figures": {"mine": figure}})


def test_a_missing_key_is_named():
    raw = raw_config()
    del raw["training"]["seed"]
    with pytest.raises(SaemakeError, match=r"'training\.seed': missing"):
        read(raw, PROJECT, [CONFIG_FILE])


def test_a_folder_that_is_not_there_is_refused():
    over = {"models": {"demo": {"folder": "resources/dmeo"}}}
    assert "models.demo.folder': there is no folder" in said(over)


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"y": "sae_bench_core.msx"}, r"'figures\.mine\.y': no column 'sae_bench_core\.msx'; did"),
        ({"x": "tokns"}, r"'figures\.mine\.x': no column 'tokns'; did you mean 'tokens'"),
        ({"hue": "colour"}, r"figures\.mine\.hue"),
        ({"sweeps": []}, r"figures\.mine\.sweeps"),
    ],
)
def test_a_figure_of_no_column_is_refused(figure, message):
    described = {"sweeps": ["demo/L3/*"], "y": "sae_bench_core.mse"}
    assert re.search(message, said({"figures": {"mine": described | figure}}))


def test_no_model_has_the_name_of_the_folder_of_figures():
    over = {"models": {"figures": raw_config()["models"]["demo"]}}
    assert "'models.figures': results/figures/ holds figures; rename it" in said(over)


def test_every_key_is_explained_in_the_readme():
    """A key is explained where the README has it in backticks at the start of a table's row."""
    text = (PROJECT / "config" / "README.md").read_text()
    explained = set(re.findall(r"^\| `([a-zA-Z_0-9]+)`", text, flags=re.MULTILINE))
    sections = [Config, Model, Text, Dataset, Judge, Suite, Training, Logging, Wandb, Snapshots]
    sections += [Features, Passes, SharedStore, Slurm]
    sections += [*(evaluation.get(name).Settings for name in evaluation.names()), Baselines]
    sections += [Published, Tolerances, Publishing, OwnFigure, Shape, Device, TrainingDrop]
    sections += [architectures.get(name).Settings for name in architectures.names()]
    keys = {key for section in sections for key in section.model_fields} - {"root"}
    assert keys | set(evaluation.names()) == explained


def test_laying_one_config_over_another_keeps_what_is_not_said():
    assert merged({"a": {"b": 1}}, {"a": {"b": 0, "c": 2}}) == {"a": {"b": 1, "c": 2}}
