"""What models do besides chats, told by their names. Pure."""

from fnmatch import fnmatchcase

from app.domain.relay import Service

# The first row that matches counts: a reranker is often named after the embeddings that it goes with. All of them are
# names that vendors and makers of open models use.
_ROWS: tuple[tuple[str, Service], ...] = (
    ("*rerank*", "rerank"),
    ("*moderation*", "moderation"),
    ("*embed*", "embeddings"),
    ("bge-*", "embeddings"),
    ("e5-*", "embeddings"),
    ("gte-*", "embeddings"),
    ("all-minilm*", "embeddings"),
    ("dall-e-*", "image_generation"),
    ("gpt-image-*", "image_generation"),
    ("chatgpt-image-*", "image_generation"),
    ("flux*", "image_generation"),
    ("stable-diffusion*", "image_generation"),
    ("sdxl*", "image_generation"),
    ("qwen-image*", "image_generation"),
    ("*whisper*", "transcription"),
    ("*-transcribe*", "transcription"),
    ("*sensevoice*", "transcription"),
    ("tts-*", "speech"),
    ("*-tts*", "speech"),
    ("kokoro*", "speech"),
    ("*cosyvoice*", "speech"),
)


def services_named(model: str) -> frozenset[Service] | None:
    """What a model does whose name tells it, by the upstream's name for it; None for any other model."""
    name = model.rpartition("/")[2].lower()
    service = next((service for pattern, service in _ROWS if fnmatchcase(name, pattern)), None)
    return None if service is None else frozenset((service,))
