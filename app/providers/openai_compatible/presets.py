"""Upstreams that are known by name, as rows of data.

Sizes and abilities are what the vendors told when this was written; both can be overridden in `PROVIDERS_FILE`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from app.providers.base import Ability
from app.providers.openai_compatible.upstream import PLAIN, Dialect


class ModelRow(Struct, frozen=True):
    """A model that is known: its public id, which is also the upstream's own, its size in tokens, its abilities."""

    id: str
    context_length: int
    abilities: frozenset[Ability]


class Preset(Struct, frozen=True):
    """An upstream that is known.

    Args:
        name: Ours for it; its settings begin with it, in capitals.
        base_url: Where it is; empty for one that runs on the operator's own machines.
        owned_by: Who makes its models, for the model list.
        key_env: The setting that holds its key, which switches it on.
        models: The models that it is known to have.
        dialect: In what it differs.
        any_model: Whether further models may be asked for by name.
        discover: Whether its own list of models is read.
        context_length: Of models that aren't known.
        abilities: Of models that aren't known.
    """

    name: str
    base_url: str
    owned_by: str
    key_env: str = ""
    models: tuple[ModelRow, ...] = ()
    dialect: Dialect = PLAIN
    any_model: bool = False
    discover: bool = False
    context_length: int = 32_768
    abilities: frozenset[Ability] = frozenset({"messages", "options"})


_TEXT: frozenset[Ability] = frozenset({"messages", "options"})
_TOOLS: frozenset[Ability] = _TEXT | {"tools", "json_object"}
_SEEING: frozenset[Ability] = _TOOLS | {"images"}
_ALL: frozenset[Ability] = _SEEING | {"json_schema"}
_K, _M = 1024, 1024 * 1024

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
_THINKING_ALOUD = Dialect(reasoning_field="reasoning_content")

_ROWS = (
    Preset(
        name="moonshot",
        base_url="https://api.moonshot.ai/v1",
        owned_by="moonshotai",
        key_env="MOONSHOT_API_KEY",
        models=_MOONSHOT,
        dialect=_THINKING_ALOUD,
        any_model=True,
        context_length=128 * _K,
        abilities=_TOOLS,
    ),
    Preset(
        name="moonshot-cn",
        base_url="https://api.moonshot.cn/v1",
        owned_by="moonshotai",
        key_env="MOONSHOT_CN_API_KEY",
        models=_MOONSHOT,
        dialect=_THINKING_ALOUD,
        any_model=True,
        context_length=128 * _K,
        abilities=_TOOLS,
    ),
    Preset(
        name="deepseek",
        base_url="https://api.deepseek.com/v1",
        owned_by="deepseek",
        key_env="DEEPSEEK_API_KEY",
        models=(
            ModelRow("deepseek-chat", 128 * _K, _TOOLS),
            ModelRow("deepseek-reasoner", 128 * _K, _TOOLS),
        ),
        any_model=True,
        context_length=128 * _K,
        abilities=_TOOLS,
    ),
    Preset(
        name="qianfan",
        base_url="https://qianfan.baidubce.com/v2",
        owned_by="baidu",
        key_env="QIANFAN_API_KEY",
        models=(
            ModelRow("ernie-4.5-turbo-128k", 128 * _K, _TOOLS),
            ModelRow("ernie-4.5-turbo-32k", 32 * _K, _TOOLS),
            ModelRow("ernie-4.5-turbo-vl-32k", 32 * _K, _TEXT | {"images"}),
            ModelRow("ernie-x1-turbo-32k", 32 * _K, _TOOLS),
        ),
        any_model=True,
        abilities=_TEXT,
    ),
    Preset(
        name="openai",
        base_url="https://api.openai.com/v1",
        owned_by="openai",
        key_env="OPENAI_API_KEY",
        models=(
            ModelRow("gpt-5", 400_000, _ALL),
            ModelRow("gpt-5-mini", 400_000, _ALL),
            ModelRow("gpt-5-nano", 400_000, _ALL),
            ModelRow("gpt-4.1", 1_047_576, _ALL),
            ModelRow("gpt-4.1-mini", 1_047_576, _ALL),
            ModelRow("gpt-4o", 128_000, _ALL),
            ModelRow("gpt-4o-mini", 128_000, _ALL),
        ),
        dialect=Dialect(max_tokens_field="max_completion_tokens"),
        any_model=True,
        context_length=128_000,
        abilities=_ALL,
    ),
    Preset(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        owned_by="openrouter",
        key_env="OPENROUTER_API_KEY",
        models=(
            ModelRow("moonshotai/kimi-k2-0905", 256 * _K, _TOOLS),
            ModelRow("moonshotai/kimi-k2-thinking", 256 * _K, _TOOLS),
        ),
        # Anybody may read its list of models; what is known of one's own key, only its owner.
        dialect=Dialect(reasoning_field="reasoning", check_path="/key"),
        any_model=True,
        context_length=128 * _K,
        abilities=_ALL,
    ),
    Preset(
        name="siliconflow",
        base_url="https://api.siliconflow.cn/v1",
        owned_by="siliconflow",
        key_env="SILICONFLOW_API_KEY",
        models=(
            ModelRow("moonshotai/Kimi-K2-Instruct-0905", 256 * _K, _TOOLS),
            ModelRow("deepseek-ai/DeepSeek-V3.1", 160 * _K, _TOOLS),
            ModelRow("Qwen/Qwen3-32B", 128 * _K, _TOOLS),
        ),
        any_model=True,
        abilities=_TOOLS,
    ),
    # Whether a local model calls tools depends on the model and on how the server was started: the gateway's own way
    # works with all of them.
    Preset("ollama", "", "ollama", any_model=True, discover=True, abilities=_TEXT | {"json_object", "json_schema"}),
    Preset("vllm", "", "vllm", any_model=True, discover=True, abilities=_TEXT | {"json_object", "json_schema"}),
    Preset("lmstudio", "", "lmstudio", any_model=True, discover=True, abilities=_TEXT | {"json_schema"}),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.name: row for row in _ROWS})
