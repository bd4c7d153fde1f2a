"""From a request to a job: finds the base, resolves every default, and encodes the data."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from serve_app.api.jobs_protocol import ParsedFineTune
from serve_app.domain.errors import (
    CapabilityError,
    InvalidInputError,
    ModelLoadError,
    ModelNotFoundError,
    UnavailableError,
)
from serve_app.domain.model_names import shown, spellings
from serve_app.domain.profiles import Capability
from serve_app.jobs.job_folder_readers import TrainingData
from serve_app.jobs.training_pairs import Example
from serve_app.jobs.training_spec import NARROWEST_IN_FOUR_BITS, TrainingKind, TrainingSpec, default_learning_rate
from serve_app.models.fine_tunes import find_fine_tune
from serve_app.models.head_files import HEAD_FILES
from serve_app.models.model_source import ModelSource, describe, find_model
from serve_app.settings.model_settings import ModelSettings
from serve_app.settings.training_settings import TrainingSettings

logger = logging.getLogger(__name__)


class BaseModels:
    """The models that may be tuned: the configured ones, and fine-tunes that are whole models."""

    def __init__(
        self,
        models: Sequence[ModelSettings],
        models_dir: Path,
        rerankers: Collection[str] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Takes the configured models, the default one first, the rerankers' names, and the model of each alias."""
        self._aliases = aliases or {}
        self._models = {model.name: model for model in models}
        self._rerankers = frozenset(rerankers)
        self._models_dir = models_dir

    def find(self, name: str | None) -> ModelSource:
        """The model with its weights; one of the hub is downloaded. Only the operator can name a hub model.

        Raises:
            ModelNotFoundError: There is no such model here.
            InvalidInputError: It cannot be tuned.
            UnavailableError: Its folder cannot be read; why is for the log, because it names folders of this machine.
        """
        name = next(iter(self._models)) if not name else self._resolved(name)
        try:
            if (model := self._models.get(name)) is not None:
                return find_model(name, self._models_dir, family=model.family)
            if name in self._rerankers:
                known = ", ".join(self._models)
                raise InvalidInputError(
                    f"base_model: {name!r} is a reranker: it scores pairs and computes no vectors, so it cannot be "
                    f"fine-tuned here; these models can: {known}"
                )
            if (found := find_fine_tune(name, self._models_dir)) is None:
                known = ", ".join(self._models)
                raise ModelNotFoundError(f"base_model: no model {shown(name)} is served; these are: {known}")
            if found.adapter:
                raise InvalidInputError(f"base_model: {name!r} is an adapter; tune its base {found.base!r} instead")
            return describe(name, found.folder, family=found.family)
        except ModelLoadError as error:
            logger.warning("the base model %r cannot be read: %s", name, error.message)
            raise UnavailableError(f"base_model: {name!r} cannot be read; the log says why") from error

    def _resolved(self, name: str) -> str:
        """The name of the model that a client means, if there is one."""
        known = self._models.keys() | self._rerankers
        for spelling in spellings(name, self._aliases):
            if spelling in known or find_fine_tune(spelling, self._models_dir) is not None:
                return spelling
        return name


def check_feasible(request: ParsedFineTune, base: ModelSource) -> None:
    """Makes sure that the base has all that is trained, and that a Q-LoRA can run; nothing else takes its place.

    Raises:
        CapabilityError: Heads of the base are missing; or bitsandbytes is not installed, or the model too narrow.
    """
    if Capability.COLBERT in base.profile.capabilities:
        for name in HEAD_FILES:
            if not (base.folder / name).is_file():
                raise CapabilityError(
                    f"base_model: {base.name!r} cannot be tuned without {name}, which its folder lacks; copy it from "
                    f"the original model"
                )
    if request.kind is not TrainingKind.QLORA:
        return
    instead = "take LoRA on unquantised weights (use_qlora: false; in OpenAI's form the method lora)"
    if find_spec("bitsandbytes") is None:
        raise CapabilityError(f"use_qlora: bitsandbytes is not installed here; {instead}")
    if base.dimension % NARROWEST_IN_FOUR_BITS:
        raise CapabilityError(
            f"use_qlora: the layers of {base.name!r} are {base.dimension} wide, and only multiples of "
            f"{NARROWEST_IN_FOUR_BITS} can be quantised; {instead}"
        )


def resolve_spec(
    request: ParsedFineTune, base: ModelSource, settings: TrainingSettings, models_dir: Path, *, gpus: float
) -> TrainingSpec:
    """The spec of a request, with every default resolved.

    Args:
        request: The client's request.
        base: The model that is tuned.
        settings: Values for what the client left out.
        models_dir: Folder of the result.
        gpus: GPUs of the cluster, for ``auto``.
    """
    auto = min(1.0 if settings.num_workers > 1 else settings.gpu_share, gpus)  # two on one GPU cannot communicate
    per_worker = auto if settings.gpus_per_worker == "auto" else settings.gpus_per_worker
    return TrainingSpec(
        job_id=str(uuid.uuid4()),
        model_name=request.model_name,
        base_model=base.name,
        base_folder=str(base.folder),
        models_dir=str(models_dir),
        family=base.profile.family,
        kind=request.kind,
        lora=request.lora,
        epochs=request.epochs,
        batch_size=request.batch_size,
        learning_rate=request.learning_rate or default_learning_rate(request.kind),
        max_seq_length=min(request.max_seq_length or settings.max_seq_length, base.max_tokens),
        mini_batch_size=settings.mini_batch_size,
        eval_fraction=request.eval_fraction,
        seed=settings.seed if request.seed is None else request.seed,
        gradient_checkpointing=settings.gradient_checkpointing,
        checkpoint_steps=settings.checkpoint_steps,
        num_workers=settings.num_workers,
        cpus_per_worker=settings.cpus_per_worker,
        gpus_per_worker=0.0 if settings.device == "cpu" else per_worker,
        device=settings.device,
        origin=request.origin,
    )


def training_data(request: ParsedFineTune) -> TrainingData:
    """The files of a job."""
    return TrainingData(_lines(request.examples), _lines(request.held_out) if request.held_out else None)


def _lines(examples: Sequence[Example]) -> bytes:
    return "".join(example.to_json() + "\n" for example in examples).encode()
