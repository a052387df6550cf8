"""Upstreams that are known by name, as rows of data.

A row is all it takes: its settings, their checks and their documentation follow from its name. Sizes and abilities are
what the vendors stated when this was written; `PROVIDERS_FILE` can correct both.
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from app.domain.chat import ApiKind
from app.providers.api_upstream.upstream import PLAIN, Quirks
from app.providers.base import Ability
from app.providers.bounds import BoundsRow, ModelBounds

# Requests at once to a vendor, from each worker: far more than anybody's account allows, and the vendor says so itself.
API_CONCURRENCY = 1000


class ModelRow(Struct, frozen=True):
    """A known model: its public id, which is also the upstream's own, its size in tokens, its abilities."""

    id: str
    context_length: int
    abilities: frozenset[Ability]


class Preset(Struct, frozen=True):
    """A known upstream.

    Args:
        name: Our name for it. Its settings begin with it: `moonshot-cn` has `MOONSHOT_CN_API_KEY`.
        owned_by: Who makes its models, for the model list.
        base_url: Its address; empty for one that runs on the operator's own machines.
        models: Its known models.
        quirks: How it differs from the others.
        any_model: Whether further models may be asked for by name.
        discover: Whether its own list of models is read.
        context_length: The size of models that aren't known, in tokens.
        abilities: The abilities of models that aren't known.
        movable: Whether there is a setting for another address.
        example_url: An address to show to operators, for one that runs on their own machines.
        bounds: What its models take, known or not, by patterns of their names.
        concurrency: Requests at once, from each worker.
        kind: The form of its API.
    """

    name: str
    owned_by: str
    base_url: str = ""
    models: tuple[ModelRow, ...] = ()
    quirks: Quirks = PLAIN
    any_model: bool = False
    discover: bool = False
    context_length: int = 32_768
    abilities: frozenset[Ability] = frozenset({"messages", "options"})
    movable: bool = True
    example_url: str = ""
    bounds: tuple[BoundsRow, ...] = ()
    concurrency: int = API_CONCURRENCY
    kind: ApiKind = "openai"

    @property
    def variables(self) -> dict[str, str]:
        """Its settings: `api_key`, `base_url` and `models`, as far as it has them, with their variables' names."""
        fields = ["api_key"] if self.base_url else []
        fields += ["base_url"] if self.movable else []
        prefix = self.name.replace("-", "_")
        return {field: f"{prefix}_{field}".upper() for field in (*fields, "models")}

    @property
    def switch(self) -> str:
        """The variable that switches it on: the key's, or the address's of one without a known address."""
        return self.variables["api_key" if self.base_url else "base_url"]


_TEXT: frozenset[Ability] = frozenset({"messages", "options"})
_TOOLS: frozenset[Ability] = _TEXT | {"tools", "json_object"}
_SEEING: frozenset[Ability] = _TOOLS | {"images"}
_ALL: frozenset[Ability] = _SEEING | {"json_schema"}
_CLAUDE: frozenset[Ability] = _TEXT | {"tools", "images", "json_schema"}
_K, _M = 1024, 1024 * 1024
_CLAUDES = ("fable", "haiku", "mythos", "opus", "sonnet")

_MOONSHOT = (
    ModelRow("kimi-k2.5", 256 * _K, _SEEING),
    ModelRow("kimi-k2-thinking", 256 * _K, _TOOLS),
    ModelRow("kimi-k2-thinking-turbo", 256 * _K, _TOOLS),
    ModelRow("kimi-k2-0905-preview", 256 * _K, _TOOLS),
    ModelRow("kimi-k2-turbo-preview", 256 * _K, _TOOLS),
    ModelRow("kimi-latest", 128 * _K, _SEEING),
    ModelRow("moonshot-v1-8k", 8 * _K, _TOOLS),
    ModelRow("moonshot-v1-32k", 32 * _K, _TOOLS),
    ModelRow("moonshot-v1-128k", 128 * _K, _TOOLS),
)
_MOONSHOT_BOUNDS = (
    BoundsRow("*", ModelBounds(options={"temperature": (0, 1)}, schemas="moonshot")),
    BoundsRow("*thinking*", ModelBounds(options={"temperature": (1, 1)})),
    BoundsRow(
        "kimi-k2.[5-9]*",
        ModelBounds(
            options={
                "temperature": (1, 1),
                "top_p": (0.95, 0.95),
                "presence_penalty": (0, 0),
                "frequency_penalty": (0, 0),
            }
        ),
    ),
)
# OpenAI's models that think before they answer.
_OPENAI_THINKER: dict[str, tuple[float, float]] = {
    "temperature": (1, 1),
    "top_p": (1, 1),
    "presence_penalty": (0, 0),
    "frequency_penalty": (0, 0),
}
# What Anthropic's API takes beside what every request has; it refuses what it doesn't know.
_ANTHROPIC_OPTIONS = frozenset(
    {"cache_control", "container", "context_management", "inference_geo", "mcp_servers", "output_config", "speed"}
    | {"reasoning_effort", "service_tier", "temperature", "thinking", "top_k", "top_p"}
)
_ANTHROPIC_BOUNDS = (
    BoundsRow("*", ModelBounds(options={"temperature": (0, 1)}, known_options=_ANTHROPIC_OPTIONS)),
    BoundsRow("claude-3-*", ModelBounds(max_tokens=4 * _K)),
    BoundsRow("claude-3-5-*", ModelBounds(max_tokens=8 * _K)),
    BoundsRow("claude-3-7-*", ModelBounds(max_tokens=64_000)),
    *(BoundsRow(pattern, ModelBounds(max_tokens=64_000)) for pattern in ("claude-sonnet-4-*", "claude-haiku-4-*")),
    *(
        BoundsRow(pattern, ModelBounds(max_tokens=32_000))
        for pattern in ("claude-opus-4-2025*", "claude-opus-4-0", "claude-opus-4-1*")
    ),
    # These take no sampling options.
    *(
        BoundsRow(pattern, ModelBounds(options={"temperature": (1, 1), "top_p": (1, 1)}))
        for pattern in ("claude-opus-4-[7-9]*", *(f"claude-{name}-5*" for name in _CLAUDES))
    ),
)
_GEMINI_OPTIONS = frozenset(
    {"cached_content", "frequency_penalty", "presence_penalty", "reasoning_effort", "safety_settings", "seed"}
    | {"temperature", "thinking_config", "top_k", "top_p"}
)
_MOONSHOT_QUIRKS = Quirks(reasoning_field="reasoning_content", one_system_message=False)

_ROWS = (
    Preset(
        name="moonshot",
        owned_by="moonshotai",
        base_url="https://api.moonshot.ai/v1",
        models=_MOONSHOT,
        quirks=_MOONSHOT_QUIRKS,
        bounds=_MOONSHOT_BOUNDS,
        any_model=True,
        context_length=128 * _K,
        abilities=_TOOLS,
    ),
    Preset(
        name="moonshot-cn",
        owned_by="moonshotai",
        base_url="https://api.moonshot.cn/v1",
        models=_MOONSHOT,
        quirks=_MOONSHOT_QUIRKS,
        bounds=_MOONSHOT_BOUNDS,
        any_model=True,
        context_length=128 * _K,
        abilities=_TOOLS,
    ),
    Preset(
        name="deepseek",
        owned_by="deepseek",
        base_url="https://api.deepseek.com/v1",
        models=(
            ModelRow("deepseek-chat", 128 * _K, _TOOLS),
            ModelRow("deepseek-reasoner", 128 * _K, _TOOLS),
        ),
        bounds=(
            BoundsRow("deepseek-chat", ModelBounds(max_tokens=8 * _K)),
            BoundsRow("deepseek-reasoner", ModelBounds(max_tokens=64 * _K)),
        ),
        quirks=Quirks(one_system_message=False),
        any_model=True,
        context_length=128 * _K,
        abilities=_TOOLS,
    ),
    Preset(
        name="qianfan",
        owned_by="baidu",
        base_url="https://qianfan.baidubce.com/v2",
        models=(
            ModelRow("ernie-4.5-turbo-128k", 128 * _K, _TOOLS),
            ModelRow("ernie-4.5-turbo-32k", 32 * _K, _TOOLS),
            ModelRow("ernie-4.5-turbo-vl-32k", 32 * _K, _TEXT | {"images"}),
            ModelRow("ernie-x1-turbo-32k", 32 * _K, _TOOLS),
        ),
        bounds=(
            BoundsRow("ernie-4.5-turbo-*", ModelBounds(max_tokens=12 * _K)),
            BoundsRow("ernie-x1-turbo-*", ModelBounds(max_tokens=28_160)),
        ),
        any_model=True,
        abilities=_TEXT,
    ),
    Preset(
        name="openai",
        owned_by="openai",
        base_url="https://api.openai.com/v1",
        models=(
            ModelRow("gpt-5", 400_000, _ALL),
            ModelRow("gpt-5-mini", 400_000, _ALL),
            ModelRow("gpt-5-nano", 400_000, _ALL),
            ModelRow("gpt-4.1", 1_047_576, _ALL),
            ModelRow("gpt-4.1-mini", 1_047_576, _ALL),
            ModelRow("gpt-4o", 128_000, _ALL),
            ModelRow("gpt-4o-mini", 128_000, _ALL),
        ),
        quirks=Quirks(max_tokens_field="max_completion_tokens", takes_extras=False, one_system_message=False),
        bounds=(
            BoundsRow("gpt-4o*", ModelBounds(max_tokens=16_384)),
            BoundsRow("gpt-4.1*", ModelBounds(max_tokens=32_768)),
            BoundsRow("gpt-5*", ModelBounds(max_tokens=128_000)),
            BoundsRow("gpt-5-chat*", ModelBounds(max_tokens=16_384)),
            *(
                BoundsRow(pattern, ModelBounds(options=_OPENAI_THINKER))
                for pattern in ("gpt-5", "gpt-5-mini*", "gpt-5-nano*", "gpt-5-2025*", "o[134]", "o[134]-*")
            ),
        ),
        movable=False,  # clients of this gateway use OPENAI_BASE_URL for the gateway's own address
        any_model=True,
        context_length=128_000,
        abilities=_ALL,
    ),
    Preset(
        name="anthropic",
        kind="anthropic",
        owned_by="anthropic",
        base_url="https://api.anthropic.com/v1",
        models=(
            ModelRow("claude-opus-5-5", 200_000, _CLAUDE),
            ModelRow("claude-sonnet-5-5", 200_000, _CLAUDE),
            ModelRow("claude-haiku-5-5", 200_000, _CLAUDE),
            ModelRow("claude-opus-4-8", 200_000, _CLAUDE),
            ModelRow("claude-sonnet-4-6", 200_000, _CLAUDE),
            ModelRow("claude-haiku-4-5", 200_000, _CLAUDE),
        ),
        bounds=_ANTHROPIC_BOUNDS,
        movable=False,  # clients of this gateway use ANTHROPIC_BASE_URL for the gateway's own address
        any_model=True,
        context_length=200_000,
        abilities=_TEXT | {"tools", "images"},
    ),
    Preset(
        name="gemini",
        kind="gemini",
        owned_by="google",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        models=(
            ModelRow("gemini-3-pro-preview", _M, _ALL),
            ModelRow("gemini-3-flash-preview", _M, _ALL),
            ModelRow("gemini-2.5-pro", _M, _ALL),
            ModelRow("gemini-2.5-flash", _M, _ALL),
            ModelRow("gemini-2.5-flash-lite", _M, _ALL),
        ),
        bounds=(
            BoundsRow("*", ModelBounds(options={"temperature": (0, 2)}, known_options=_GEMINI_OPTIONS)),
            BoundsRow("gemini-2.0-*", ModelBounds(max_tokens=8 * _K)),
            BoundsRow("gemini-2.5-*", ModelBounds(max_tokens=64 * _K)),
            BoundsRow("gemini-3-*", ModelBounds(max_tokens=64 * _K)),
        ),
        any_model=True,
        discover=True,
        context_length=_M,
        abilities=_ALL,
    ),
    Preset(
        name="openrouter",
        owned_by="openrouter",
        base_url="https://openrouter.ai/api/v1",
        models=(
            ModelRow("moonshotai/kimi-k2-0905", 256 * _K, _TOOLS),
            ModelRow("moonshotai/kimi-k2-thinking", 256 * _K, _TOOLS),
        ),
        # Its list of models is public, so reading it proves nothing about a key. Only a key's owner can read this.
        quirks=Quirks(reasoning_field="reasoning", one_system_message=False, check_path="/key"),
        any_model=True,
        context_length=128 * _K,
        abilities=_ALL,
    ),
    Preset(
        name="siliconflow",
        owned_by="siliconflow",
        base_url="https://api.siliconflow.cn/v1",
        models=(
            ModelRow("moonshotai/Kimi-K2-Instruct-0905", 256 * _K, _TOOLS),
            ModelRow("deepseek-ai/DeepSeek-V3.1", 160 * _K, _TOOLS),
            ModelRow("Qwen/Qwen3-32B", 128 * _K, _TOOLS),
        ),
        any_model=True,
        abilities=_TOOLS,
    ),
    # Whether a local model calls tools depends on the model and on how its server was started. The gateway's own way of
    # calling them works with all.
    Preset(
        name="ollama",
        owned_by="ollama",
        concurrency=8,
        any_model=True,
        discover=True,
        abilities=_TEXT | {"json_object", "json_schema"},
        example_url="http://localhost:11434",
    ),
    Preset(
        name="vllm",
        owned_by="vllm",
        concurrency=64,
        any_model=True,
        discover=True,
        abilities=_TEXT | {"json_object", "json_schema"},
        example_url="http://localhost:8000/v1",
    ),
    Preset(
        name="lmstudio",
        owned_by="lmstudio",
        concurrency=8,
        any_model=True,
        discover=True,
        abilities=_TEXT | {"json_schema"},
        example_url="http://localhost:1234",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.name: row for row in _ROWS})
