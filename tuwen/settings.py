"""All settings, typed, read once from the environment and `.env`, and passed in from there.

Every field here stands in `.env.example` and in the README's table; a test checks that.
"""

import os
import ssl
import sys
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from tuwen.limit_settings import LimitSettings, split_at_commas

VERSION = "0.2.0"
PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEMO_CLIP, FIRST_DEMO_CLIP = PROJECT_ROOT / "models" / "demo-clip-2", PROJECT_ROOT / "models" / "demo-clip"
SKU_COLUMN_LENGTH, CATEGORY_COLUMN_LENGTH, GROUP_COLUMN_LENGTH = 64, 100, 64
MAX_GUIDANCE = 50.0
ServerAddress = Annotated[str, Field(pattern=r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$")]
HostName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*$")]

# Which file, besides the environment; empty: none.
ENV_FILE = os.environ.get("TUWEN_ENV_FILE", ".env") or None


class Settings(LimitSettings):
    """Empty values of the four `*_URL`/`*_URI` engines choose the embedded ones under `data_dir`."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # which may be a password
    )

    # Where things are
    data_dir: Path = Path("data")
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=1, le=65535)
    web_port: int = Field(6006, ge=1, le=65535)
    api_url: str = ""
    web_language: Literal["zh", "en"] = "zh"
    cors_allow_origins: Annotated[tuple[str, ...], NoDecode] = ()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    access_log: bool = False
    heartbeat_dir: Path | None = None

    # Access
    open_to: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = ()
    host_names: Annotated[tuple[HostName, ...], NoDecode] = ()
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = ()
    public_pictures: bool = False
    api_key: SecretStr = SecretStr("")
    api_key_file: Path | None = None

    # Engines
    database_url: str = Field("", repr=False)  # with a password in it
    database_timeout_s: float = Field(30.0, ge=2)  # InnoDB waits for a lock in whole seconds, half as long
    auto_migrate: bool = True
    milvus_uri: str = Field("", repr=False)
    milvus_token: SecretStr = SecretStr("")
    milvus_ca_file: Path | None = None
    milvus_timeout_s: float = Field(10.0, gt=0)
    milvus_index_type: Literal["HNSW", "HNSW_SQ"] = "HNSW"
    milvus_shards: int = Field(1, ge=1, le=16)  # Milvus's own limit
    milvus_hnsw_m: int = Field(16, ge=2, le=2048)
    milvus_hnsw_ef_construction: int = Field(200, ge=1)
    milvus_search_ef: int = Field(128, ge=1, le=32_768)
    kafka_bootstrap_servers: str = ""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca_file: Path | None = None
    kafka_check_hostname: bool = True
    kafka_topic: str = "product-events"
    kafka_group: str = "tuwen-indexer"
    kafka_partitions: int = Field(12, ge=1)
    kafka_replication: int = Field(1, ge=1)
    kafka_idempotent_producer: bool = True
    image_store_url: str = ""
    image_store_timeout_s: float = Field(10.0, gt=0)
    durable_writes: bool = True
    disk_min_free_mb: int = Field(500, ge=0)

    # Models
    clip_model: str = str(DEMO_CLIP)
    text_model: str = str(PROJECT_ROOT / "models" / "demo-bge")
    model_hub: Literal["huggingface", "modelscope", "none"] = "huggingface"
    model_device: str = "auto"
    encoder_backend: Literal["auto", "torch", "openvino"] = "auto"
    encoder_precision: Literal["auto", "int8"] = "auto"
    encoder_cache_dir: Path | None = None
    model_threads: int = Field(0, ge=0)
    text_query_prompt: str | None = None
    text_document_prompt: str | None = None
    clip_endpoint_style: Literal["vllm", "infinity"] = "vllm"
    endpoint_api_key: SecretStr = SecretStr("")
    endpoint_api_key_file: Path | None = None
    endpoint_servers: Annotated[tuple[ServerAddress, ...], NoDecode] = ()
    endpoint_timeout_s: float = Field(10.0, gt=0)
    endpoint_batch_size: int = Field(32, ge=1, le=256)
    endpoint_calls_at_once: int = Field(4, ge=1, le=64)
    reranker_model: str = ""
    reranker_endpoint_style: Literal["jina", "tei"] = "jina"
    reranker_timeout_s: float = Field(3.0, gt=0)
    query_batch_size: int = Field(16, ge=1)
    query_queue_size: int = Field(256, ge=1)
    query_cache_size: int = Field(4096, ge=0)
    lexicon_file: Path | None = None

    # Generation
    generator_model: str = str(PROJECT_ROOT / "models" / "demo-generator")
    generator_device: str = "auto"
    generator_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    generator_offload: Literal["none", "model", "sequential"] = "none"
    generator_attention_slicing: bool = False
    generator_threads: int = Field(0, ge=0)
    generator_steps: int = Field(0, ge=0)
    generator_guidance: float | None = Field(None, ge=0, le=MAX_GUIDANCE)
    generation_topic: str = "generation-jobs"
    generation_group: str = "tuwen-generator"
    generation_heartbeat_s: float = Field(5.0, gt=0)
    generation_keep_hours: float = Field(7 * 24.0, gt=0)

    # Ingestion
    ingest_batch_size: int = Field(32, ge=1, le=1000)
    ingest_encode_batch_size: int = Field(4, ge=1)
    relay_poll_s: float = Field(1.0, gt=0)
    retry_backoff_max_s: float = Field(5.0, gt=0)
    reconcile_interval_s: float = Field(600.0, ge=0)
    reconcile_grace_s: float = Field(600.0, ge=10)
    reconcile_large_share: float = Field(0.1, ge=0, le=1)

    @field_validator(
        "cors_allow_origins", "open_to", "host_names", "trusted_proxies", "endpoint_servers", mode="before"
    )
    @classmethod
    def split_commas(cls, value: object) -> object:
        return split_at_commas(value)

    @field_validator("milvus_uri")
    @classmethod
    def is_milvus_address(cls, value: str) -> str:
        address = urlsplit(value)
        is_server = address.scheme in ("http", "https", "tcp") and address.hostname and address.port != 0
        if not (is_server or value.startswith("unix:") or value.endswith(".db") or value == ""):
            raise ValueError("a server is written http://host:19530; the path of a Milvus Lite file ends with .db")
        return value

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def are_broker_addresses(cls, value: str) -> str:
        for part in value.split(",") if value else ():
            address = urlsplit(f"//{part.strip()}")
            if not address.hostname or address.port == 0 or address.path or address.username is not None:
                raise ValueError("a broker is written host:9092, several with commas between them")
        return value

    @field_validator("kafka_ca_file", "milvus_ca_file")
    @classmethod
    def holds_certificates(cls, value: Path | None) -> Path | None:
        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:  # of the file or, as an SSLError, of what is in it
            raise ValueError(f"{value} can't be read as certificates (PEM): {error}") from error
        return value

    @model_validator(mode="after")
    def security_agrees(self) -> Self:
        """What one setting promises another must not leave out. Says names alone, never a value."""
        if self.milvus_ca_file and not self.milvus_uri.startswith("https://"):
            raise ValueError("MILVUS_CA_FILE needs a MILVUS_URI that begins with https://")
        if not self.kafka_bootstrap_servers:
            return self
        protocol = f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol}"
        login = {
            "KAFKA_SASL_MECHANISM": self.kafka_sasl_mechanism,
            "KAFKA_USERNAME": self.kafka_username,
            "KAFKA_PASSWORD": self.kafka_password.get_secret_value(),
        }
        given, missing = [n for n, value in login.items() if value], [n for n, value in login.items() if not value]
        if self.kafka_uses_sasl and missing:
            raise ValueError(f"{protocol} needs {' and '.join(missing)} as well")
        if given and not self.kafka_uses_sasl:
            raise ValueError(f"{protocol} makes no use of {' and '.join(given)}: it must be SASL_SSL or SASL_PLAINTEXT")
        if self.kafka_ca_file and not self.kafka_uses_tls:
            raise ValueError(f"{protocol} makes no use of KAFKA_CA_FILE: it must be SSL or SASL_SSL")
        if self.kafka_uses_tls and not self.kafka_check_hostname and not self.kafka_ca_file:
            raise ValueError("KAFKA_CHECK_HOSTNAME=false needs a KAFKA_CA_FILE: else any server would do")
        return self

    @property
    def kafka_uses_tls(self) -> bool:
        return self.kafka_security_protocol in ("SSL", "SASL_SSL")

    @property
    def kafka_uses_sasl(self) -> bool:
        return self.kafka_security_protocol.startswith("SASL_")

    @property
    def database_dsn(self) -> str:
        return self.database_url or f"sqlite:///{(self.data_dir / 'tuwen.db').resolve()}"

    @property
    def milvus_address(self) -> str:
        return self.milvus_uri or str((self.data_dir / "milvus.db").resolve())

    @property
    def milvus_is_file(self) -> bool:
        """Milvus Lite in file mode belongs to one process alone."""
        return not (self.milvus_address.startswith("unix:") or "://" in self.milvus_address)

    def source_of(self, engine: str) -> str:
        """The setting that says where an engine is: its own, or `DATA_DIR` where that is empty."""
        return engine.upper() if getattr(self, engine) else "DATA_DIR"

    @property
    def image_store_address(self) -> str:
        return self.image_store_url or str((self.data_dir / "images").resolve())

    @property
    def encoder_cache(self) -> Path:
        return (self.encoder_cache_dir or self.data_dir / "encoders").resolve()

    @property
    def pictures_indexed_at_once(self) -> int:
        """By one `Ingestor`: as many as the model takes now and next."""
        return 2 * self.ingest_encode_batch_size

    @property
    def local_folders(self) -> list[Path]:
        """The folders of this machine that are filled."""
        images = [] if "://" in self.image_store_address else [Path(self.image_store_address)]
        return [*images, self.data_dir.resolve()]

    @property
    def api_address(self) -> str:
        return (self.api_url or f"http://127.0.0.1:{self.api_port}").rstrip("/")

    def key_to_send(self, given: str = "") -> str:
        """The given one, or what the pages and the command line act with; empty: none. Raises ValueError, in words."""
        key = given or self.api_key.get_secret_value()
        try:
            if self.api_key_file is not None and not key:
                key = self.api_key_file.read_text(encoding="utf-8-sig", errors="replace").strip()
        except OSError as error:
            raise ValueError(f"API_KEY_FILE={self.api_key_file} can't be read: {error.strerror}") from error
        if not (key.isascii() and key.isprintable()):  # no header could carry it
            raise ValueError("That is no API key, which is all ASCII: see --api-key, API_KEY or API_KEY_FILE (UTF-8).")
        return key

    @property
    def uses_demo_models(self) -> bool:
        """Said in the API and on the pages, so that nobody judges production quality by the demo models."""
        demo = PROJECT_ROOT / "models"
        return any(demo in Path(model).resolve().parents for model in (self.clip_model, self.text_model))

    def as_environment(self) -> dict[str, str]:
        """For a child process that shall have these very settings."""
        values = {name.upper(): getattr(self, name) for name in type(self).model_fields}
        values |= {"DATA_DIR": self.data_dir.resolve()}
        return {name: _as_text(value) for name, value in values.items()}


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def load_settings() -> Settings:
    """Read the settings, or end the process with one line for each setting that is wrong."""
    try:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"The settings in {ENV_FILE} can't be read, which must be UTF-8: {error}")
    except ValidationError as error:
        lines = [complaint(e["loc"], e["msg"], e["input"]) for e in error.errors()]
        sys.exit("Settings can't be used:\n  " + "\n  ".join(lines))


def complaint(field: tuple[int | str, ...], message: str, value: object) -> str:
    """With the value, unless that is all settings together or has a password before its host."""
    shown = f" (got {value!r})" if field and "@" not in str(value) else ""
    return f"{'_'.join(map(str, field)).upper() or 'Together'}: {message}{shown}"
