"""What models do besides chats: by their names, by presets and by the file."""

from pathlib import Path

import pytest

from app.domain.relay import Service
from app.providers.api_upstream.upstream import Upstream
from app.providers.api_upstream.upstream_models import UpstreamModels
from app.providers.base import ModelSpec
from app.providers.config import configured_upstreams
from app.providers.entries import ProvidersFileError, read_providers_file
from app.providers.services import services_named
from tests.providers.test_config import DEFAULTS

BY_NAME: dict[str, Service | None] = {
    "text-embedding-3-small": "embeddings",
    "nomic-embed-text:latest": "embeddings",
    "BAAI/bge-m3": "embeddings",
    "Qwen/Qwen3-Embedding-8B": "embeddings",
    "BAAI/bge-reranker-v2-m3": "rerank",
    "jina-reranker-v2-base-multilingual": "rerank",
    "omni-moderation-latest": "moderation",
    "dall-e-3": "image_generation",
    "gpt-image-1-mini": "image_generation",
    "black-forest-labs/FLUX.1-schnell": "image_generation",
    "whisper-1": "transcription",
    "gpt-4o-mini-transcribe": "transcription",
    "FunAudioLLM/SenseVoiceSmall": "transcription",
    "tts-1-hd": "speech",
    "gpt-4o-mini-tts": "speech",
    "kimi-k2-0905-preview": None,
    "gpt-4o": None,
    "embedder/llama": None,
}


@pytest.mark.parametrize(("name", "service"), BY_NAME.items())
def test_names_tell(name: str, service: Service | None) -> None:
    """Vendors' names do, with or without the makers in front; of other names nothing is known."""
    assert services_named(name) == (None if service is None else {service})


def specs(path: Path, models: str, preset: str = "") -> dict[str, ModelSpec]:
    """The models of a file's only upstream."""
    path.write_text(f'[[providers]]\nname = "up"\n{preset}base_url = "http://up/v1"\nmodels = [{models}]\n', "utf-8")
    [(upstream, _)] = configured_upstreams(read_providers_file(path), {}, {}, DEFAULTS)
    return {spec.id: spec for spec in upstream.models}


def test_the_file_says_what_a_model_does(tmp_path: Path) -> None:
    """`abilities` are the whole truth, whatever the name says; without them the name counts."""
    found = specs(
        tmp_path / "providers.toml",
        '"whisper-1", "m3", { id = "vectors", upstream_id = "m3", abilities = ["embeddings", "rerank"] }, '
        '{ id = "all", abilities = ["tools", "image_generation"] }, { id = "tts-llm", abilities = [] }',
    )
    assert {name: spec.services for name, spec in found.items()} == {
        "whisper-1": {"transcription"},
        "m3": None,
        "vectors": {"embeddings", "rerank"},
        "all": {"image_generation"},
        "tts-llm": frozenset(),
    }
    assert {name: spec.told_abilities for name, spec in found.items()} == {
        "whisper-1": ["transcription"],
        "m3": ["messages", "options"],
        "vectors": ["embeddings", "rerank"],
        "all": ["image_generation", "messages", "options", "tools"],
        "tts-llm": ["messages", "options"],
    }
    assert [name for name, spec in found.items() if spec.may_serve("embeddings")] == ["m3", "vectors"]


def test_an_unknown_ability_is_refused(tmp_path: Path) -> None:
    """The message names the place."""
    with pytest.raises(ProvidersFileError, match=r"providers\[0\] \(up\).models\[0\].abilities"):
        specs(tmp_path / "providers.toml", '{ id = "a", abilities = ["flying"] }')


def test_a_chat_with_such_a_model_is_what_it_was(tmp_path: Path) -> None:
    """It goes to the upstream with the abilities of any model there."""
    found = specs(tmp_path / "providers.toml", '"whisper-1"', 'preset = "vllm"\n')
    assert found["whisper-1"].abilities == {"messages", "options", "json_object", "json_schema"}


def test_a_preset_s_models_are_chat_models(tmp_path: Path) -> None:
    """What is known of a vendor's models is all there is; others are told by their names."""
    found = specs(tmp_path / "providers.toml", '"gpt-4o", "text-embedding-3-large", "gpt-7"', 'preset = "openai"\n')
    assert [spec.services for spec in found.values()] == [frozenset(), {"embeddings"}, None]


async def test_models_that_an_upstream_lists_are_told_by_their_names() -> None:
    """So are those that somebody makes up."""

    async def listed() -> object:
        return {"data": [{"id": "nomic-embed-text"}, {"id": "qwen3"}]}

    models = UpstreamModels(Upstream("up", "http://up/v1", discover=True), listed)
    await models.refresh()
    embedder, other = models.models
    assert (embedder.services, embedder.chats) == (frozenset({"embeddings"}), False)
    assert (other.services, other.chats) == (None, True)
    assert models.spec("tts-9", public_id="up/tts-9", listed=False).services == frozenset({"speech"})
