"""`saemake.load`: an SAE from its files, with what lies beside them and the LM that it is of."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from saemake.architectures import loading
from saemake.architectures.dictionary import Dictionary
from saemake.base import source, yaml_file
from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import sha256
from saemake.config.config import content_files
from saemake.inputs.weights import of_hub
from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.notebook.first_look import Activations, Lm
from saemake.paths.names import METRICS, PUBLISHED, RESULTS
from saemake.text.shards import Contexts

PROVENANCE = "provenance.json"
CHECKPOINTS = loading.CHECKPOINTS


def load(
    place: str | os.PathLike[str], device: str | torch.device, inference: str | None
) -> Dictionary:
    """`saemake.load`, which documents it."""
    dictionary = loading.load(place, device, inference)
    path = loading.weights_file(Path(place))
    # Not resolved: an SAE in the Hub's cache is of links to files that lie elsewhere.
    dictionary.origin = Origin(path.absolute(), dictionary)
    return dictionary


class Origin:
    """Where a dictionary was read from."""

    def __init__(self, path: Path, dictionary: Dictionary) -> None:
        self.path = path
        self.dictionary = dictionary
        of_checkpoint = path.parent.name == CHECKPOINTS
        self.folder = path.parent.parent if of_checkpoint else path.parent
        # The LM's place, where it was given last.
        self.place: str | os.PathLike[str] | None = None
        self._lms: dict[Any, tuple[LanguageModel, Any]] = {}
        assert dictionary.config is not None
        self.trainer: dict[str, Any] = dictionary.config["trainer"]

    @property
    def hookpoint(self) -> Hookpoint:
        """Where in the LM it reads; published SAEs read the residual stream after a block."""
        return Hookpoint.at(self.trainer["layer"], self.trainer.get("site", RESID_POST))

    @property
    def metrics(self) -> dict[str, Any]:
        """Of metrics.json: the row of the way in which the dictionary chooses latents."""
        file = self.path.parent / METRICS
        try:
            rows = json.loads(file.read_text())
        except FileNotFoundError:
            raise SaemakeError(
                f"{file}: not there; build it, or read one evaluation, such as"
                f" {self.path.parent / 'dictionary_learning.json'}"
            ) from None
        except (OSError, ValueError) as error:
            raise SaemakeError(f"{file}: cannot be read ({first_line(error)})") from None
        of_checkpoint = self.path.name != loading.WEIGHTS
        way = self.dictionary.inference
        for row in rows if isinstance(rows, list) else ():
            of_this = not of_checkpoint or str(row.get("name")).endswith(f"/{self.path.stem}")
            if of_this and row.get("inference") in (None, way):
                found: dict[str, Any] = row
                return found
        chosen = f", its latents chosen by {way}" if way else ""
        raise SaemakeError(f"{file}: has no row of {self.path.name}{chosen}; build it again")

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """provenance.json, of an SAE that was trained here; else empty."""
        try:
            content: dict[str, Any] = json.loads((self.folder / PROVENANCE).read_text())
        except (OSError, ValueError):
            return {}
        return content

    def weights(self, place: str | os.PathLike[str] | None) -> Weights:
        """The files of the LM that the SAE is of: at `place`, else at the place given before, else
        where the SAE's files or the project's config say. Raises SaemakeError where there is none,
        or it is another LM."""
        place = self.place if place is None else place
        model = self.provenance.get("recipe", {}).get("tokens", {}).get("model", {})
        # As the recipe says, or as many as are here: the activations differ by rounding.
        asked = self.provenance.get("recipe", {}).get("lm_devices", 1)
        weights = Weights(
            name=self.trainer["lm_name"],
            folder=self._folder(place),
            gguf_file=model.get("gguf_file"),
            dtype=model.get("dtype", "float32"),
            devices=max(min(asked, torch.cuda.device_count()), 1),
        )
        self._check(weights)
        self.place = place
        return weights

    def _folder(self, place: str | os.PathLike[str] | None) -> Path:
        name = self.trainer["lm_name"]
        trained_on = self.provenance.get("lm", {})
        hub, revision = trained_on.get("hub"), trained_on.get("revision")
        if place is not None:
            if Path(place).is_dir():
                return Path(place)
            return of_hub(str(place), revision if str(place) == hub else "main")
        if hub:
            return of_hub(hub, revision)
        if not trained_on and "/" in name:  # a published SAE has its LM's Hub id
            return of_hub(name, self._fetched_for(name) or "main")
        models = yaml_file.read(source.ROOT / "config" / "config.yaml")["models"]
        said = models.get(name, {}).get("folder")
        if said is None or not (source.ROOT / said).is_dir():
            raise SaemakeError(
                f"{self.folder}: its LM '{name}' was a local folder, and the project's config does"
                " not say where; name it once: sae.lm('FOLDER') or sae.activations(text, 'FOLDER')"
            )
        return source.ROOT / str(said)

    def _fetched_for(self, hub: str) -> str | None:
        """The commit of an LM that the project fetched to judge a published SAE under published/;
        None of an SAE elsewhere."""
        match self.folder.parts[-6:]:
            case [top, model, _, _, _, _] if top == PUBLISHED:
                described = self.folder.parents[4].with_name(RESULTS) / model / "model.json"
            case _:
                return None
        try:
            content = json.loads(described.read_text())
            return str(content["revision"]) if content["hub"] == hub else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _check(self, weights: Weights) -> None:
        """Raise SaemakeError where the files are not those of the LM that the SAE is of."""
        sums = self.provenance.get("lm", {}).get("sha256", {})
        there = {path.name: path for path in content_files(weights.folder)}
        another = f"{weights.folder}: not the LM that {self.folder} is an SAE of"
        for file, sum_ in sums.items():
            if file in there and sha256(there[file]) != sum_:
                raise SaemakeError(f"{another}: its {file} differs; give that LM's folder")
        try:
            lm_config = AutoConfig.from_pretrained(
                weights.folder, **weights.arguments(), local_files_only=True
            ).get_text_config()
        except (OSError, ValueError) as error:
            raise SaemakeError(f"{weights.folder}: holds no LM ({first_line(error)})") from None
        width, layer = self.trainer["activation_dim"], self.hookpoint.layer
        if lm_config.hidden_size != width or lm_config.num_hidden_layers <= layer:
            raise SaemakeError(
                f"{another}: it is {lm_config.hidden_size} wide with {lm_config.num_hidden_layers}"
                f" layers, and the SAE reads layer {layer} of one that is {width} wide"
            )

    def lm(self, place: str | os.PathLike[str] | None) -> Lm:
        """The LM and its tokenizer, as transformers has them."""
        weights = self.weights(place)
        model = AutoModelForCausalLM.from_pretrained(
            weights.folder,
            **weights.arguments(),
            dtype=getattr(torch, weights.dtype),
            local_files_only=True,
        )
        return Lm(model.eval().to(self._device), self._tokenizer(weights))

    def activations(self, text: str, place: str | os.PathLike[str] | None) -> Activations:
        """What the SAE sees of a text."""
        lm, tokenizer = self._capturing(place)
        ids = tokenizer(text)["input_ids"]
        tokens = self.provenance.get("recipe", {}).get("tokens", {})
        bos = tokenizer.bos_token_id
        bos = tokenizer.eos_token_id if bos is None else bos
        if tokens.get("prepend_bos") and ids[:1] != [bos]:
            ids = [bos, *ids]
        if not ids:
            raise SaemakeError("the text has no token")
        ids_BL = torch.tensor([ids])
        x_LD = lm.capture(Contexts(ids_BL, torch.ones_like(ids_BL)))[0]
        with torch.no_grad():
            f_LF = self.dictionary.encode(x_LD)
        words = [tokenizer.decode([token]) for token in ids]
        return Activations(words, ids, x_LD, f_LF)

    def _capturing(self, place: str | os.PathLike[str] | None) -> tuple[LanguageModel, Any]:
        """The LM up to what the SAE reads, and its tokenizer. The last one is kept."""
        place = self.place if place is None else place
        key = (place, self._device)
        if key not in self._lms:
            weights = self.weights(place)
            lm = LanguageModel(weights, self.hookpoint.source, self._device, whole=False)
            self._lms = {key: (lm, self._tokenizer(weights))}
        return self._lms[key]

    def _tokenizer(self, weights: Weights) -> Any:
        return AutoTokenizer.from_pretrained(
            weights.folder, **weights.arguments(), local_files_only=True
        )

    @property
    def _device(self) -> torch.device:
        return next(self.dictionary.parameters()).device
