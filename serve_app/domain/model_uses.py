"""The rule that decides which models may be deleted: fine-tunes that nothing else needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from serve_app.domain.errors import ConflictError


@dataclass(frozen=True)
class ModelUses:
    """Everything that may need a model.

    Attributes:
        aliases: The model of each alias.
        configured: Names of the configured models.
        jobs: The job that tunes a model, by the model's name.
        fine_tunes: The fine-tunes of a model, by the model's name.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    configured: Collection[str] = ()
    jobs: Mapping[str, str] = field(default_factory=dict)
    fine_tunes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def require_unused(self, name: str) -> None:
        """Makes sure that nothing needs a model.

        Raises:
            ConflictError: It is configured, an alias, or the base of a job or of a fine-tune.
        """
        if name in self.aliases:
            raise ConflictError(f"{name!r} is an alias, in the configuration, of {self.aliases[name]!r}")
        if name in self.configured:
            raise ConflictError(
                f"{name!r} is named in the configuration of the service; only fine-tunes can be deleted"
            )
        if name in self.jobs:
            raise ConflictError(f"{name!r} is the base of the job {self.jobs[name]}; cancel that first")
        if name in self.fine_tunes:
            raise ConflictError(f"{name!r} is the base of {', '.join(self.fine_tunes[name])}; delete these first")
