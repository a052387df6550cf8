"""The list of models, page by page, as Anthropic's clients read it. Pure."""

import re
from collections.abc import Sequence
from datetime import datetime

from app.api.anthropic.schemas import ModelInfo, ModelPage
from app.domain.errors import InvalidRequest
from app.domain.prompt import PromptLimit

_LARGEST_PAGE = 1000


def model_info(name: str, limit: PromptLimit | None, since: datetime) -> ModelInfo:
    """A model by the name under which it can be asked.

    Args:
        limit: The longest conversation; None for a model that doesn't chat.
        since: When it came to be, as far as this gateway knows.
    """
    return ModelInfo(
        id=name,
        display_name=name,
        created_at=since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=limit.size if limit is not None and limit.unit == "tokens" else None,
    )


def model_page(models: Sequence[ModelInfo], *, limit: str, after_id: str = "", before_id: str = "") -> ModelPage:
    """At most `limit` models, from the beginning, or next after one, or next before one.

    Raises:
        InvalidRequest: The limit is none, or there is no model of that id.
    """
    size = _size(limit)
    if before_id:
        end = _place(models, before_id, "before_id")
        begin = max(0, end - size)
        has_more = begin > 0
    else:
        begin = _place(models, after_id, "after_id") + 1 if after_id else 0
        end = begin + size
        has_more = end < len(models)
    page = list(models[begin:end])
    return ModelPage(
        data=page,
        has_more=has_more,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
    )


def _size(limit: str) -> int:
    if re.fullmatch("[0-9]{1,4}", limit) and 1 <= int(limit) <= _LARGEST_PAGE:
        return int(limit)
    raise InvalidRequest(f"limit must be between 1 and {_LARGEST_PAGE}.", param="limit")


def _place(models: Sequence[ModelInfo], model_id: str, param: str) -> int:
    for place, model in enumerate(models):
        if model.id == model_id:
            return place
    raise InvalidRequest(f"The model {model_id[:100]!r} is not in the list.", param=param)
