"""Settings: the only reader of the environment. Each field's description is its help text and says how to choose a value."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pins.errors import ArtifactError

SHIPPED_MODEL = Path(__file__).parent / "models" / "everpin-l6-v1"


class Settings(BaseSettings):
    """All settings of Everpin; each is read from EVERPIN_<NAME> (and `qdrant_url` from QDRANT_URL too)."""

    model_config = SettingsConfigDict(env_prefix="EVERPIN_", frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(Path(".everpin"), description="State folder of the embedded stores. One per installation; put it on a local disk.")
    kafka: str = Field("", description="Kafka bootstrap address host:port. Empty: the embedded broker of the running `everpin up`.")
    qdrant_url: str = Field("", validation_alias="QDRANT_URL", description="URL of a Qdrant server. Empty: Qdrant's engine in process.")
    qdrant_timeout_s: int = Field(10, ge=1, description="Seconds to wait for one answer of the Qdrant server.")
    feast_yaml: Path | None = Field(None, description="A feature_store.yaml. Empty: ordered SQLite; feature_store.redis.yaml for Redis.")
    model: Path = Field(SHIPPED_MODEL, description="Model folder of the student to run, as made by `python -m training.export`.")
    registry: str = Field("", description="MLflow tracking URI of the model registry: a server, or sqlite:///FILE. Empty: SQLite below EVERPIN_HOME.")
    cosmetic: bool = Field(True, description="Keep the vector when a change is predicted to move it less than the student's bound.")
    threads: int = Field(2, ge=1, description="Cores one encoder run may use. With several workers on a machine: cores / workers.")
    encoder_nice: int = Field(
        10, ge=0, le=19, description="How far an embedded worker's encoding stands behind answers: niceness of its threads, on Linux. 0: not at all."
    )
    batch_events: int = Field(128, ge=1, le=256, description="Most events taken at once. Larger batches wait longer and write cheaper.")
    batch_ms: int = Field(50, ge=1, description="Longest wait for a batch to fill, in milliseconds. It is part of every event's freshness.")
    retry_budget_s: float = Field(120.0, ge=0, description="How long a dead store is waited for before the worker stops un-acked, in seconds.")
    dead_letter_limit: int = Field(100, ge=1, description="Dead letters in excess of good messages that stop the worker: the deploy is bad, not the data.")
    vanished_limit: int = Field(100, ge=1, description="Live pins found without any features, in excess of others, that stop the worker: Feast lost its data.")
    park_delay_s: float = Field(1.0, gt=0, description="Seconds until the first new look for features that Feast lacks. Each wait doubles, up to a minute.")
    park_deadline_s: float = Field(600.0, gt=0, description="Seconds after which an event whose features never came becomes a dead letter.")
    partitions: int = Field(12, ge=1, description="Partitions of a topic that Everpin creates: a multiple of the workers, or some may get none.")
    replication: int = Field(1, ge=1, description="Replicas of a topic that Everpin creates. 3 in production.")
    http_host: str = Field("127.0.0.1", description="Address of the worker's routes. They have no password: 0.0.0.0 only behind a firewall or in a pod.")
    http_port: int = Field(0, ge=0, le=65535, description="Port of the worker's health and index routes. 0: any free one.")
    host: str = Field("127.0.0.1", description="Address of the API and the web page. Any but a loopback address needs API keys (`everpin keys add`).")
    port: int = Field(8600, ge=0, le=65535, description="Port of the API and the web page. 0: any free one.")
    max_in_flight: int = Field(32, ge=1, description="Requests the API works on at once; more are answered 503 with Retry-After at once.")
    cors_origins: str = Field("", description="Origins, separated by commas, whose pages may call the API from a browser. Empty: none but its own page.")
    log_level: str = Field("info", pattern="^(debug|info|warn|error)$", description="debug, info, warn or error.")

    @field_validator("feast_yaml", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @property
    def feast_home(self) -> Path:
        return self.home / "feast"

    @property
    def index_home(self) -> Path:
        return self.home / "index"

    @property
    def models_home(self) -> Path:
        """Folder of the published models, one folder each."""
        return self.home / "models"

    @property
    def registry_home(self) -> Path:
        """Folder of the model registry where `registry` names no other place."""
        return self.home / "registry"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings. Raises ArtifactError that names each wrong variable."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(item['loc'])}: {item['msg']}, got {item['input']!r}" for item in error.errors())
        raise ArtifactError(f"settings: {wrong}") from error


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "QDRANT_URL" if name == "qdrant_url" else f"EVERPIN_{name.upper()}"


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else ""
    return name if name.isupper() else variable(name)
