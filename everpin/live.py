"""Which models an installation runs: the live one, which the alias names, and those of a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedder.artifact import read_manifest
from everpin.model_folders import model_folder
from everpin.settings import Settings
from index.rollout import EdgeAlias, QdrantAlias
from index.rollout_state import EdgeRolloutState, QdrantRolloutState, RolloutState
from pins.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Installation:
    """The alias and the state of the rollout, of a server or of the embedded index."""

    config: Settings
    alias: EdgeAlias | QdrantAlias
    state: RolloutState

    def live(self) -> str:
        """The live model's id: what the alias names, else the model of EVERPIN_MODEL. Raises Unavailable, ArtifactError."""
        return self.alias.live() or read_manifest(self.config.model).model_id

    def models(self) -> Mapping[str, Path]:
        """Every model whose collection must be kept up to date, the live one first, with its folder. Raises Unavailable, ArtifactError."""
        rollout = self.state.read()
        wanted = dict.fromkeys([self.live(), *(rollout.models() if rollout else ())])
        return {model_id: model_folder(self.config, model_id) for model_id in wanted}


def installation(config: Settings) -> Installation:
    """The installation that the settings name."""
    if not config.qdrant_url:
        return Installation(config, EdgeAlias(config.index_home), EdgeRolloutState(config.index_home))
    from index.qdrant import connect  # noqa: PLC0415  slow to import; the embedded index does not need it

    client = connect(config.qdrant_url, config.qdrant_timeout_s)
    return Installation(config, QdrantAlias(client), QdrantRolloutState(client))


def of_model(config: Settings, folder: Path) -> Settings:
    """The same settings for another model."""
    return config.model_copy(update={"model": folder})


def live_settings(config: Settings) -> Settings:
    """The settings for the live model, unless EVERPIN_MODEL names one: then that one is meant. Raises ArtifactError when its folder is not here.

    Where the alias cannot be read, the model of the settings; whoever goes on to the index hears why.
    """
    if "model" in config.model_fields_set:
        return config
    try:
        live = installation(config).alias.live()
    except Unavailable:
        return config
    return of_model(config, model_folder(config, live)) if live else config
