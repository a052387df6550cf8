"""Which provider serves which model."""

from collections.abc import Iterable, Mapping, Sequence

from app.domain.errors import ModelNotFound
from app.providers.base import BaseProvider, ModelSpec


class ProviderRegistry:
    """The providers of this gateway, looked up by public model id.

    Args:
        default_model: The model of requests that name none.
        aliases: Further names of models, by alias.
    """

    def __init__(self, default_model: str, aliases: Mapping[str, str] | None = None) -> None:
        self.default_model = default_model
        self._aliases = dict(aliases or {})
        self._providers: list[BaseProvider] = []
        self._models: dict[str, tuple[BaseProvider, ModelSpec]] = {}

    def register(self, provider: BaseProvider) -> None:
        """Add a provider and its models.

        Raises:
            ValueError: Another provider already serves a model of the same id.
        """
        for spec in provider.models:
            if spec.id in self._models:
                raise ValueError(f"Two providers serve the model {spec.id!r}.")
            self._models[spec.id] = (provider, spec)
        self._providers.append(provider)

    def resolve(self, model: str) -> tuple[BaseProvider, ModelSpec]:
        """The provider of a model, and its row for it.

        Raises:
            ModelNotFound: No provider serves it.
        """
        found = self._models.get(self._aliases.get(model, model))
        if found is None:
            raise ModelNotFound(
                f"The model {model[:100]!r} does not exist. GET /v1/models lists those that do.", param="model"
            )
        return found

    def model_ids(self) -> Sequence[tuple[str, ModelSpec]]:
        """Every name that `resolve` knows, with the model that it stands for; aliases first."""
        aliased = [
            (alias, self._models[target][1]) for alias, target in self._aliases.items() if target in self._models
        ]
        return [*aliased, *((model_id, spec) for model_id, (_, spec) in self._models.items())]

    @property
    def providers(self) -> Iterable[BaseProvider]:
        """All providers, in the order of registration."""
        return tuple(self._providers)
