"""Which SAEs train on one run of the LM: what is wanted is cut into few passes that fit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.inputs import weights
from saemake.llm.shape import Shape
from saemake.paths.names import SaeName, Trained
from saemake.plan import memory
from saemake.recipes.kinds import SaeRecipe
from saemake.recipes.training import lm_run_key, sae_recipe

GIB = 2**30


@dataclass(frozen=True)
class Pass:
    """SAEs that train on one run of the LM. `jobs` are the jobs that ask for them."""

    saes: tuple[SaeName, ...]
    jobs: tuple[Trained, ...]

    @property
    def model(self) -> str:
        return self.saes[0].model

    @cached_property
    def shared(self) -> bool:
        """Whether several jobs ask for it: the first that starts trains for all."""
        return len(self.jobs) > 1

    def __str__(self) -> str:
        """`demo/L3/top_k/1k`, or, of several jobs, `demo (L3, L4; top_k, gated; 1k)`."""
        return of_jobs(self.jobs) if self.shared else str(self.jobs[0])


def of_jobs(jobs: Sequence[Trained]) -> str:
    """`demo (L3, L4; top_k, gated; 1k)`."""
    sweeps = [job.sweep if isinstance(job, SaeName) else job for job in jobs]
    parts = [
        dict.fromkeys(str(sweep.hookpoint) for sweep in sweeps),
        dict.fromkeys(sweep.architecture for sweep in sweeps),
        dict.fromkeys(sweep.width for sweep in sweeps),
    ]
    return f"{sweeps[0].model} ({'; '.join(', '.join(part) for part in parts)})"


def cut(config: Config, missing: Mapping[Trained, Sequence[SaeName]]) -> list[Pass]:
    """The passes that train the missing SAEs of some jobs. SAEs share one where `passes.share` of
    the config lets them and their recipes allow it (lm_run_key), as many as fit into
    `passes.memory_gib`.

    Raises SaemakeError where one SAE alone does not fit, or a model's shape is not known.
    """
    groups: dict[tuple[object, ...], list[tuple[SaeName, Trained]]] = {}
    for trained, saes in missing.items():
        for sae in saes:
            key = _group(config, sae, trained)
            groups.setdefault(key, []).append((sae, trained))
    return [
        Pass(tuple(sae for sae, _ in part), tuple(dict.fromkeys(job for _, job in part)))
        for group in groups.values()
        for part in _fitting(config, group)
    ]


def _group(config: Config, sae: SaeName, trained: Trained) -> tuple[object, ...]:
    """What SAEs of one pass have in common."""
    if not config.passes.across_jobs:
        return (trained,)
    return (sae.model, lm_run_key(sae_recipe(config, sae)), *apart(config, sae))


def apart(config: Config, trained: Trained) -> tuple[object, ...]:
    """What SAEs have to have in common besides, by `passes.share`."""
    sweep = trained.sweep if isinstance(trained, SaeName) else trained
    own = {
        "layers": sweep.hookpoint.layer,
        "sites": sweep.hookpoint.site,
        "architectures": sweep.architecture,
        "widths": sweep.width,
        "seeds": trained.seed if isinstance(trained, SaeName) else None,
    }
    return tuple(value for kind, value in own.items() if kind not in config.passes.share)


def _fitting(
    config: Config, group: list[tuple[SaeName, Trained]]
) -> Iterable[Sequence[tuple[SaeName, Trained]]]:
    if config.passes.memory_gib is None:
        return [group]
    model, limit = group[0][0].model, config.passes.memory_gib
    shape = weights.shape(config, model)
    # Those of a hookpoint and a seed together: each has a buffer of its own.
    ordered = sorted(group, key=lambda each: (each[0].hookpoint.order, each[0].seed or 0))
    recipes = [sae_recipe(config, sae) for sae, _ in ordered]
    devices = config.passes.devices_per_pass
    rooms = [int(limit * GIB)] * config.gpus_to_train(model)
    places = fewest(len(ordered), lambda a, b: _fits(recipes[a:b], shape, rooms, devices))
    if places is None:
        alone = [needed([recipe], shape) for recipe in recipes]
        most = max(alone)
        sae, _ = ordered[alone.index(most)]
        raise SaemakeError(
            f"passes.memory_gib {limit:g} is too little for {sae}, whose pass takes about"
            f" {most / GIB:.1f} GiB: set it higher, or lower models.{model}.buffer_tokens or the"
            " width"
        )
    return [ordered[first:last] for first, last in pairwise(places)]


def _fits(recipes: Sequence[SaeRecipe], shape: Shape, rooms: Sequence[int], devices: int) -> bool:
    """Whether a pass fits into so many bytes of each of its GPUs, with SAEs on so many of them."""
    if len(rooms) == 1:
        return needed(recipes, shape) <= rooms[0]
    return memory.spread(recipes, shape, rooms, devices) is not None


def needed(recipes: Sequence[SaeRecipe], shape: Shape) -> int:
    """Bytes of a pass at its largest, on a GPU or a CPU, whichever takes more."""
    of_pass = memory.of_training(recipes, shape)
    return max(of_pass.on_gpu, *of_pass.on_other_gpus, of_pass.on_cpu)


def fewest(count: int, fits: Callable[[int, int], bool]) -> list[int] | None:
    """Where to cut so many things, in their order, into the fewest parts that fit: 0, the place of
    each cut, and `count`. Parts are of about the same size where such parts fit. None where one
    thing alone does not fit. `fits(first, last)` says whether those from `first` to before `last`
    do."""
    places = [0]
    while places[-1] < count:
        first = places[-1]
        last = next((last for last in range(count, first, -1) if fits(first, last)), None)
        if last is None:
            return None
        places.append(last)
    parts = len(places) - 1
    even = [round(part * count / parts) for part in range(parts + 1)]
    return even if all(fits(*ends) for ends in pairwise(even)) else places
