"""The list of models, page by page, as Google's clients read it. Pure."""

import re
from collections.abc import Sequence

from app.api.gemini.schemas import GeminiModel, GeminiModelPage
from app.domain.errors import InvalidRequest
from app.providers.registry import Target

_USUAL_PAGE = 50
_LARGEST_PAGE = 1000
_PREFIX = "models/"


def model_info(name: str, target: Target) -> GeminiModel:
    """A model by the name under which it can be asked.

    Args:
        target: Who answers it first.
    """
    limit = target.spec.told_limit
    return GeminiModel(
        name=_PREFIX + name,
        displayName=name,
        description=target.description,
        version=name,
        inputTokenLimit=limit.size if limit is not None and limit.unit == "tokens" else None,
        supportedGenerationMethods=["generateContent", "countTokens"] if target.spec.chats else [],
    )


def model_page(models: Sequence[GeminiModel], *, size: str, token: str) -> GeminiModelPage:
    """At most `size` models, from the beginning or next after the model that the token names.

    Raises:
        InvalidRequest: The size is none, or there is no model of that name.
    """
    begin = _place_behind(models, token) if token else 0
    end = begin + _size(size)
    page = list(models[begin:end])
    return GeminiModelPage(models=page, nextPageToken=page[-1].name if page and end < len(models) else None)


def _size(given: str) -> int:
    if not given:
        return _USUAL_PAGE
    if not re.fullmatch("[0-9]{1,9}", given):
        raise InvalidRequest("pageSize must be a number.", param="pageSize")
    # Google's rule: 0 is none given, and too many are as many as may be.
    return min(int(given) or _USUAL_PAGE, _LARGEST_PAGE)


def _place_behind(models: Sequence[GeminiModel], token: str) -> int:
    for place, model in enumerate(models, 1):
        if model.name == token:
            return place
    raise InvalidRequest("pageToken is not one of this list's.", param="pageToken")
