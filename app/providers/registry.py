"""Which providers can answer a model name, and in which order they are asked."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

from app.domain.errors import InvalidRequest, ModelNotFound
from app.providers.base import BaseProvider, ModelSpec


@dataclass(frozen=True, slots=True)  # pydantic, which reads routes from settings, knows no other kind of record
class ModelRoute:
    """What a name of the operator's stands for.

    Args:
        targets: Model ids, or `provider/model` ids. The first is asked first, the others if it can't answer.
        weights: One for each target: the targets share the requests in these proportions, and stand in for each other.
    """

    targets: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def order(self) -> Iterable[str]:
        """The targets in the order in which they are asked this time."""
        if self.weights is None:
            return self.targets
        # Efraimidis and Spirakis: sorted by these keys, each place is drawn with the weights of those that are left.
        weights = dict(zip(self.targets, self.weights, strict=True))
        keys = {target: random.random() ** (1 / weight) for target, weight in weights.items()}  # noqa: S311 - no secret
        return sorted(keys, key=lambda target: keys[target], reverse=True)


class Target(Struct, frozen=True):
    """A model at a provider."""

    provider: BaseProvider
    spec: ModelSpec


class _Listed:
    """What a provider lists, by the models' ids. Read once for each list, which may have hundreds of rows."""

    __slots__ = ("_models", "_size", "_targets", "provider")

    def __init__(self, provider: BaseProvider) -> None:
        self.provider = provider
        self._models: Sequence[ModelSpec] = ()
        self._size = 0
        self._targets: dict[str, Target] = {}

    def target(self, model_id: str) -> Target | None:
        """The model of that id; of several the first."""
        models = self.provider.models
        if models is not self._models or len(models) != self._size:
            self._models, self._size = models, len(models)
            self._targets = {spec.id: Target(self.provider, spec) for spec in reversed(models)}
        return self._targets.get(model_id)


class ProviderRegistry:
    """The providers of this gateway, looked up by model name.

    A name is a route's, or a model id (the provider that was registered first wins), or `provider/model`.

    Args:
        default_model: The model of requests that name none.
        routes: The operator's names, by name; they come before models of the same id.
    """

    def __init__(self, default_model: str, routes: Mapping[str, ModelRoute] | None = None) -> None:
        self.default_model = default_model
        self._routes = dict(routes or {})
        self._providers: dict[str, _Listed] = {}

    def register(self, provider: BaseProvider) -> None:
        """Add a provider and its models.

        Raises:
            ValueError: There is one of that name already.
        """
        if provider.name in self._providers:
            raise ValueError(f"Two providers have the name {provider.name!r}.")
        self._providers[provider.name] = _Listed(provider)

    def check_routes(self) -> None:
        """Raise ValueError for a route that leads nowhere, or to a provider that isn't registered."""
        for name, row in self._routes.items():
            for target in row.targets:
                if self._target(target) is None and target.partition("/")[0] not in self._providers:
                    raise ValueError(
                        f"The route {name!r} leads to {target!r}, which no provider serves; "
                        f"switched on are: {', '.join(self._providers)}."
                    )

    def resolve(self, model: str, provider: str | None = None) -> tuple[Target, ...]:
        """Who can answer a model name, in the order in which they are to be asked; at least one.

        Args:
            provider: Only this one.

        Raises:
            ModelNotFound: Nobody serves it.
            InvalidRequest: There is no provider of that name.
        """
        if provider is not None and provider not in self._providers:
            raise InvalidRequest(
                f"There is no provider {provider[:100]!r} here. There are: {', '.join(self._providers)}.",
                param="X-Provider",
            )
        targets = self._targets(model, provider)
        if not targets:
            where = f" at the provider {provider!r}" if provider else ""
            raise self.missing(model, where)
        return targets

    def missing(self, model: str, where: str = "") -> ModelNotFound:
        """The error for a model that nobody serves, or that a caller may not use."""
        return ModelNotFound(
            f"The model {model[:100]!r} does not exist{where}. GET /v1/models lists those that do.", param="model"
        )

    def model_ids(self) -> Sequence[tuple[str, Target]]:
        """Every name that is listed, with the model that answers it first: routes, then models.

        With several providers each model is also listed as `provider/model`.
        """
        names = {name: found[0] for name, row in self._routes.items() if (found := self._all(row.targets))}
        own = [Target(provider, spec) for provider in self.providers for spec in provider.models]
        for target in own:
            names.setdefault(target.spec.id, target)
        for target in own if len(self._providers) > 1 else ():
            names.setdefault(f"{target.provider.name}/{target.spec.id}", target)
        return list(names.items())

    @property
    def providers(self) -> Iterable[BaseProvider]:
        """All providers, in the order of registration."""
        return tuple([listed.provider for listed in self._providers.values()])

    def _targets(self, model: str, provider: str | None) -> tuple[Target, ...]:
        row = self._routes.get(model)
        if row is not None:
            found = self._all(row.order())
            return tuple([target for target in found if provider in (None, target.provider.name)])
        target = self._target(model) if provider is None else self._pinned(self._providers[provider], model)
        return () if target is None else (target,)

    def _all(self, names: Iterable[str]) -> list[Target]:
        return [target for name in names if (target := self._target(name)) is not None]

    def _pinned(self, listed: _Listed, name: str) -> Target | None:
        """A model of this provider, by its id, with or without the provider's name in front."""
        return listed.target(name) or _found(listed.provider, name.removeprefix(f"{listed.provider.name}/"))

    def _target(self, name: str) -> Target | None:
        for listed in self._providers.values():
            target = listed.target(name)
            if target is not None:
                return target
        provider_name, _, model = name.partition("/")
        named = self._providers.get(provider_name)
        return _found(named.provider, model) if named is not None else None


def _found(provider: BaseProvider, model_id: str) -> Target | None:
    spec = provider.find(model_id)
    return None if spec is None else Target(provider, spec)
