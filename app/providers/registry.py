"""Which providers can answer a model name, and in which order they are asked."""

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from msgspec import Struct

from app.domain.caller import Caller
from app.domain.chat import ApiKind
from app.domain.errors import GatewayError, InvalidRequest, ModelNotFound
from app.providers.base import BaseProvider, ModelSpec

# The route of every name that nobody knows.
ANY_MODEL = "*"
_LONGEST_NAME = 100
_WEIGHT = re.compile(r"\d+(\.\d+)?")
_ANYBODY = Caller("")


@dataclass(frozen=True, slots=True)  # pydantic, which reads routes from settings, knows no other kind of record
class ModelRoute:
    """What a name of the operator's stands for.

    Args:
        targets: Model ids, `provider/model` ids or names of routes. The first is asked first, the others if it can't
            answer.
        weights: One for each target: the targets share the requests in these proportions, and stand in for each other.
    """

    targets: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    @classmethod
    def read(cls, text: str) -> "ModelRoute":
        """The route that a text says: `first>second`, or `some*3|others*1`.

        Raises:
            ValueError: It says something else.
        """
        weighted = "*" in text
        targets = [target.strip() for target in text.split("|" if weighted else ">")]
        if not all(targets):
            raise ValueError("write first>second or some*3|others*1")
        if not weighted:
            return cls(tuple(targets))
        pairs = [target.rpartition("*") for target in targets]
        if not all(target and _WEIGHT.fullmatch(weight) and float(weight) > 0 for target, _, weight in pairs):
            raise ValueError("every target of a weighted route needs a weight above 0, as in some*3|others*1")
        return cls(tuple(target for target, _, _ in pairs), tuple(float(weight) for _, _, weight in pairs))

    @property
    def text(self) -> str:
        """The opposite of `read`."""
        if self.weights is None:
            return ">".join(self.targets)
        return "|".join(f"{target}*{weight:g}" for target, weight in zip(self.targets, self.weights, strict=True))

    @property
    def given(self) -> Sequence[str] | Mapping[str, float]:
        """The targets in order, or with their weights."""
        return self.targets if self.weights is None else dict(zip(self.targets, self.weights, strict=True))

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

    @property
    def description(self) -> str:
        """Who answers, and how long a conversation it takes, for people."""
        place, limit = f"{self.spec.id} at {self.provider.name}", self.spec.told_limit
        if limit is None:
            return place
        unit = "characters" if limit.unit == "codepoints" else limit.unit
        return f"{place}, up to {limit.size:,} {unit} at a time"


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
    """The providers of this gateway, looked up by model name. Use it on the event loop's thread.

    A name is a route's, or a model id (the provider that was registered first wins), or `provider/model`. A name that
    is none of these means the one that differs from it only in case; failing that, the route `*`.

    Args:
        default_model: The model of requests that name none.
        routes: The operator's names, by name; they come before models of the same id. Their targets are names like any
            other, except that a route's own name, as its target, is the model of that id.
    """

    def __init__(self, default_model: str, routes: Mapping[str, ModelRoute] | None = None) -> None:
        self.default_model = default_model
        self._own_routes = dict(routes or {})
        self._own_providers: dict[str, _Listed] = {}
        # Those that hold. They are replaced as a whole, never changed: see `adopt`.
        self._routes = dict(self._own_routes)
        self._any = self._routes.pop(ANY_MODEL, None)
        self._providers: dict[str, _Listed] = {}
        # The forms of API that the providers' upstreams have.
        self.kinds: frozenset[ApiKind] = frozenset()

    def register(self, provider: BaseProvider) -> None:
        """Add a provider and its models.

        Raises:
            ValueError: There is one of that name already.
        """
        if provider.name in self._providers:
            raise ValueError(f"Two providers have the name {provider.name!r}.")
        self._own_providers[provider.name] = _Listed(provider)
        self._providers = dict(self._own_providers)
        self.kinds = _kinds_of(self._providers)

    def adopt(self, providers: Iterable[BaseProvider], routes: Mapping[str, ModelRoute]) -> dict[str, str]:
        """Have these providers after the registered ones, and these routes besides (and before) the own ones, in place
        of all that were adopted before. Calls that have begun keep the providers that they have found.

        Args:
            providers: Those that were adopted before may be among them. None has the name of a registered one.

        Returns:
            The routes that were left out because they lead in a circle, each with the way that it leads.
        """
        known = {id(listed.provider): listed for listed in self._providers.values()}
        rows = {provider.name: known.get(id(provider)) or _Listed(provider) for provider in providers}
        all_routes, circles = dict(self._own_routes), {}
        for name, route in routes.items():
            tried = {**all_routes, name: route}
            # A circle that wasn't there before leads through the route that has come last.
            way = _circle(tried, name, (name,))
            if way:
                circles[name] = " → ".join(way)
            else:
                all_routes = tried
        any_model = all_routes.pop(ANY_MODEL, None)
        # Nothing is awaited in between, so nobody sees the one without the other.
        self._routes, self._any, self._providers = all_routes, any_model, {**self._own_providers, **rows}
        self.kinds = _kinds_of(self._providers)
        return circles

    @property
    def routes(self) -> Mapping[str, ModelRoute]:
        """All routes, by name."""
        return self._routes if self._any is None else {**self._routes, ANY_MODEL: self._any}

    @property
    def own_names(self) -> frozenset[str]:
        """The names of the providers that were registered."""
        return frozenset(self._own_providers)

    def is_own_route(self, name: str) -> bool:
        """Whether the route of that name is this registry's own, rather than adopted."""
        return name in self._own_routes and self._own_routes[name] is self.routes.get(name)

    def check_route(self, name: str, others: Collection[str] = ()) -> None:
        """Raise ValueError if a route leads nowhere, to a provider that isn't there, or back to itself.

        Args:
            others: The names of further providers that may come to be there.
        """
        self._check_route(name, self.routes[name], (name,), others)

    def trial(self, providers: Iterable[BaseProvider], routes: Mapping[str, ModelRoute]) -> "ProviderRegistry":
        """Another registry, with this one's own providers and routes, as it would be if it had adopted others. Routes
        may lead in circles in it."""
        tried = ProviderRegistry(self.default_model, {**self._own_routes, **routes})
        for provider in (*(listed.provider for listed in self._own_providers.values()), *providers):
            tried.register(provider)
        return tried

    def check_routes(self) -> None:
        """Raise ValueError for a route that leads nowhere, to a provider that isn't registered, or back to itself."""
        for name in self.routes:
            self.check_route(name)

    def serves(self, model: str) -> bool:
        """Whether a name leads anywhere; models of a provider that lists them later may."""
        try:
            return bool(self.resolve(model))
        except ModelNotFound:
            return model.partition("/")[0] in self._providers

    def resolve(self, model: str, provider: str | None = None, caller: Caller = _ANYBODY) -> tuple[Target, ...]:
        """Who can answer a model name, in the order in which they are to be asked; at least one.

        Args:
            provider: Only this one.
            caller: Who asks. What a caller may not use doesn't exist for it.

        Raises:
            ModelNotFound: Nobody serves it.
            InvalidRequest: There is no provider of that name.
        """
        if provider is not None and provider not in self._providers:
            raise InvalidRequest(
                f"There is no provider {provider[:100]!r} here. There are: {', '.join(self._providers)}.",
                param="X-Provider",
            )
        found = self._targets(model, provider) if caller.may_use(model) else ()
        return found or self._meant(model, provider, caller)

    def answering(self, name: str) -> tuple[Target, ...]:
        """Who can answer a route or a model of exactly that name; nobody, maybe."""
        if name == ANY_MODEL:
            return () if self._any is None else self._of_route(name, self._any, None)
        return self._targets(name, None)

    def has_kind(self, kind: ApiKind, model: str, provider: str | None, caller: Caller) -> bool:
        """Whether one of those who can answer a model name has an API of that form."""
        if kind not in self.kinds:
            return False
        try:
            targets = self.resolve(model, provider, caller)
        except GatewayError:
            return False
        return any(target.provider.kind == kind for target in targets)

    def model_ids(self, *, doubles: bool = False, caller: Caller = _ANYBODY) -> Sequence[tuple[str, Target]]:
        """Every name that is listed, with the model that answers it first: routes, then models.

        Args:
            caller: Only what it may use.
            doubles: With several providers, whether each model is also listed as `provider/model`.
        """
        names = {name: found[0] for name in self._routes if (found := self._targets(name, None))}
        own = [Target(provider, spec) for provider in self.providers for spec in provider.models]
        for target in own:
            names.setdefault(target.spec.id, target)
        for target in own if doubles and len(self._providers) > 1 else ():
            names.setdefault(f"{target.provider.name}/{target.spec.id}", target)
        return [name for name in names.items() if caller.may_use(name[0])]

    @property
    def providers(self) -> Iterable[BaseProvider]:
        """All providers, in the order of registration."""
        return tuple([listed.provider for listed in self._providers.values()])

    def _targets(self, model: str, provider: str | None) -> tuple[Target, ...]:
        row = self._routes.get(model)
        if row is not None:
            return self._of_route(model, row, provider)
        target = self._target(model) if provider is None else self._pinned(self._providers[provider], model)
        return () if target is None else (target,)

    def _of_route(self, name: str, row: ModelRoute, provider: str | None) -> tuple[Target, ...]:
        found: dict[tuple[str, str], Target] = {}
        for target in self._all(name, row):
            if provider in (None, target.provider.name):
                # Two of the names that it leads through may mean the same model.
                found.setdefault((target.provider.name, target.spec.id), target)
        return tuple(found.values())

    def _all(self, name: str, row: ModelRoute) -> Iterable[Target]:
        for target_name in row.order():
            inner = self._routes.get(target_name) if target_name != name else None
            if inner is not None:
                yield from self._all(target_name, inner)
            elif (target := self._target(target_name)) is not None:
                yield target

    def _check_route(self, name: str, row: ModelRoute, way: tuple[str, ...], others: Collection[str]) -> None:
        for target in row.targets:
            inner = self._routes.get(target) if target != name else None
            if inner is not None:
                if target in way:
                    raise ValueError(f"The routes lead in a circle: {' → '.join((*way, target))}.")
                self._check_route(target, inner, (*way, target), others)
            elif self._target(target) is None and target.partition("/")[0] not in (*self._providers, *others):
                raise ValueError(
                    f"The route {name!r} leads to {target!r}, which no provider serves; "
                    f"switched on are: {', '.join(self._providers)}."
                )

    def _meant(self, model: str, provider: str | None, caller: Caller) -> tuple[Target, ...]:
        """Who answers a name that isn't written as any that is known."""
        folded = model.strip().casefold()
        names = [name for name, _ in self.model_ids(doubles=True, caller=caller)]
        alike = list(dict.fromkeys(name for name in names if name.casefold() == folded))
        found = {name: targets for name in alike if (targets := self._targets(name, provider))}
        if len(found) == 1:
            return next(iter(found.values()))
        if not found and self._any is not None and caller.may_use(model):
            targets = self._of_route(ANY_MODEL, self._any, provider)
            if targets:
                return targets
        where = f" at the provider {provider!r}" if provider else ""
        similar = list(found) or get_close_matches(folded[:_LONGEST_NAME], names, n=1)
        hint = f" Did you mean {' or '.join(map(repr, similar))}?" if similar else ""
        raise ModelNotFound(
            f"The model {model[:_LONGEST_NAME]!r} does not exist{where}.{hint} GET /v1/models lists those that do.",
            param="model",
        )

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


def _circle(routes: Mapping[str, ModelRoute], name: str, way: tuple[str, ...]) -> tuple[str, ...]:
    """The way from a route back to one that it has come through; empty if there is none."""
    for target in routes[name].targets:
        if target not in (name, ANY_MODEL) and target in routes:
            if target in way:
                return (*way, target)
            if circle := _circle(routes, target, (*way, target)):
                return circle
    return ()


def _kinds_of(listed: Mapping[str, _Listed]) -> frozenset[ApiKind]:
    return frozenset([one.provider.kind for one in listed.values() if one.provider.kind is not None])


def _found(provider: BaseProvider, model_id: str) -> Target | None:
    spec = provider.find(model_id)
    return None if spec is None else Target(provider, spec)
