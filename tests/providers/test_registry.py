from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.errors import InvalidRequest, ModelNotFound
from app.providers.base import ModelSpec
from app.providers.registry import ModelRoute, ProviderRegistry
from tests.domain.strategies import UNTIMED
from tests.scripted import ScriptedProvider

NAMES = ("a", "b", "c", "d")
MODELS = tuple(f"{name}-model" for name in NAMES)


def _registry(**routes: ModelRoute) -> ProviderRegistry:
    registry = ProviderRegistry("a-model", routes)
    for name in NAMES:
        registry.register(ScriptedProvider(name))
    return registry


def _asked(registry: ProviderRegistry, model: str, provider: str | None = None) -> list[str]:
    return [target.provider.name for target in registry.resolve(model, provider)]


@UNTIMED
@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.booleans())
def test_a_route_is_asked_in_its_order(names: list[str], qualified: bool) -> None:
    """Whatever targets a route names, by model id or by provider/model, they are asked one after the other."""
    targets = tuple(f"{name}/{name}-model" if qualified else f"{name}-model" for name in names)
    assert _asked(_registry(r=ModelRoute(targets)), "r") == names


@UNTIMED
@given(st.dictionaries(st.sampled_from(NAMES), st.floats(0.01, 100), min_size=1))
def test_a_weighted_route_asks_each_target_once(weights: dict[str, float]) -> None:
    """Weights decide who comes first; all the others stand in, none is lost and none comes twice."""
    row = ModelRoute(tuple(f"{name}-model" for name in weights), tuple(weights.values()))
    assert sorted(_asked(_registry(r=row), "r")) == sorted(weights)


def test_weights_are_shares() -> None:
    """With weights of three to one the first target is asked first in about three of four requests."""
    registry = _registry(r=ModelRoute(("a-model", "b-model"), (3, 1)))
    first = Counter(_asked(registry, "r")[0] for _ in range(4000))
    assert 2700 < first["a"] < 3300


def test_a_name_is_a_route_before_it_is_a_model() -> None:
    """An operator can put a route in the place of a model."""
    assert _asked(_registry(**{"a-model": ModelRoute(("b-model", "a-model"))}), "a-model") == ["b", "a"]


@pytest.mark.parametrize("model", ["b-model", "b/b-model"])
def test_a_model_has_two_names(model: str) -> None:
    """Its id, and its id behind the provider's name."""
    assert _asked(_registry(), model) == ["b"]


def test_of_two_providers_with_the_same_model_the_first_answers() -> None:
    """The plain id belongs to the provider that was registered first; the other is reached by its name."""
    registry = _registry()
    twin = ScriptedProvider("twin")
    twin.models = ScriptedProvider("a").models
    registry.register(twin)
    assert _asked(registry, "a-model") == ["a"]
    assert _asked(registry, "twin/a-model") == ["twin"]
    assert _asked(registry, "a-model", "twin") == ["twin"]


def test_a_pinned_provider_answers_alone() -> None:
    """Of a route only the pinned provider's targets are left."""
    assert _asked(_registry(r=ModelRoute(MODELS)), "r", "c") == ["c"]


class _AnyModel(ScriptedProvider):
    """Whatever name it is asked for may exist."""

    def find(self, model_id: str) -> ModelSpec:
        return super().find(model_id) or replace(self.models[0], id=f"any/{model_id}", upstream_id=model_id)


@pytest.mark.parametrize(
    ("model", "upstream_id"), [("new", "new"), ("any/new", "new"), ("lab/new", "lab/new"), ("any/any/new", "any/new")]
)
def test_a_pin_does_not_change_what_a_name_means(model: str, upstream_id: str) -> None:
    """Also where the provider is pinned, its name in front of a model's is no part of the model's name."""
    registry = _registry()
    registry.register(_AnyModel("any"))
    (target,) = registry.resolve(model, "any")
    assert (target.provider.name, target.spec.upstream_id) == ("any", upstream_id)


def test_of_names_that_mean_two_things_the_list_tells_what_is_asked() -> None:
    """A route, or a model id with a slash, may look like another provider's model: the list and the lookup agree."""
    registry = _registry(**{"b/b-model": ModelRoute(("c-model",))})
    slashed = ScriptedProvider("slashed")
    slashed.models = [replace(slashed.models[0], id="a/a-model")]
    registry.register(slashed)
    listed = dict(registry.model_ids(doubles=True))
    assert listed["b/b-model"].provider.name == "c"
    assert listed["a/a-model"].provider.name == "slashed"
    assert all(registry.resolve(name)[0] == target for name, target in listed.items())


def test_what_cannot_be_resolved_is_refused_by_its_field() -> None:
    """An unknown model is a 404 for `model`, an unknown provider a 400 that lists those there are."""
    registry = _registry()
    for model, provider in (("x", None), ("a/x", None), ("x/a-model", None), ("a-model", "b")):
        with pytest.raises(ModelNotFound) as missing:
            registry.resolve(model, provider)
        assert missing.value.param == "model"
    with pytest.raises(InvalidRequest, match="a, b, c, d") as unknown:
        registry.resolve("a-model", "x")
    assert unknown.value.param == "X-Provider"


def test_every_listed_name_can_be_asked() -> None:
    """The model list holds routes, models and provider/model names, and each of them resolves to what it lists."""
    registry = _registry(r=ModelRoute(("c-model", "a-model")))
    assert set(dict(registry.model_ids())) == {"r", *MODELS}
    listed = dict(registry.model_ids(doubles=True))
    assert set(listed) == {"r", *MODELS, *(f"{name}/{name}-model" for name in NAMES)}
    assert all(registry.resolve(name)[0] == target for name, target in listed.items())


def test_a_name_may_lead_to_another_name() -> None:
    """Routes lead through routes, in order, and a model that two of them mean is asked once."""
    registry = _registry(x=ModelRoute(("y", "c-model")), y=ModelRoute(("z", "c/c-model")), z=ModelRoute(("b-model",)))
    registry.check_routes()
    assert _asked(registry, "x") == ["b", "c"]
    assert _asked(registry, "x", "c") == ["c"]


@pytest.mark.parametrize(
    ("routes", "circle"),
    [
        ({"x": ("y",), "y": ("x",)}, "x → y → x"),
        ({"x": ("a-model", "y"), "y": ("z",), "z": ("y",)}, "x → y → z → y"),
        ({"a-model": ("x",), "x": ("a-model",)}, "a-model → x → a-model"),
    ],
)
def test_names_that_lead_in_a_circle_are_refused_at_the_start(routes: dict[str, tuple[str, ...]], circle: str) -> None:
    """With the circle, so that an operator sees where to cut it."""
    registry = _registry(**{name: ModelRoute(targets) for name, targets in routes.items()})
    with pytest.raises(ValueError, match=circle):
        registry.check_routes()


@pytest.mark.parametrize(
    ("asked", "provider"),
    [("A-Model", "a"), (" a-model ", "a"), ("B/B-MODEL", "b"), ("MINE", "c"), ("Mine", "c")],
)
def test_a_name_is_found_however_it_is_written(asked: str, provider: str) -> None:
    """People type names; case and spaces around them tell nothing."""
    assert _asked(_registry(mine=ModelRoute(("c-model",))), asked) == [provider]


def test_case_counts_where_it_tells_names_apart() -> None:
    """An exact name is what it says; one that could be two is refused with both."""
    registry = _registry(Big=ModelRoute(("a-model",)), big=ModelRoute(("b-model",)))
    assert (_asked(registry, "Big"), _asked(registry, "big")) == (["a"], ["b"])
    with pytest.raises(ModelNotFound, match="Did you mean 'Big' or 'big'"):
        registry.resolve("BIG")


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    """A 404 that says what to write instead."""
    with pytest.raises(ModelNotFound, match="Did you mean 'a-model'"):
        _registry().resolve("a-modle")


def test_the_star_answers_every_name_that_nobody_serves() -> None:
    """It is no name itself: neither listed nor asked for, and known names don't need it."""
    registry = _registry(**{"*": ModelRoute(("r", "b-model")), "r": ModelRoute(("c-model",))})
    registry.check_routes()
    assert _asked(registry, "gpt-whatever") == ["c", "b"]
    assert _asked(registry, "gpt-whatever", "b") == ["b"]
    assert _asked(registry, "A-MODEL") == ["a"]
    assert "*" not in dict(registry.model_ids(doubles=True))
    with pytest.raises(ModelNotFound):
        registry.resolve("gpt-whatever", "d")
    with pytest.raises(ValueError, match="nowhere"):
        _registry(**{"*": ModelRoute(("nowhere",))}).check_routes()


def test_a_route_to_nowhere_is_refused_at_the_start() -> None:
    """A route whose target no provider can have is a mistake that is told at once."""
    _registry(r=ModelRoute(("a/discovered-later",))).check_routes()
    with pytest.raises(ValueError, match="nowhere"):
        _registry(r=ModelRoute(("a-model", "nowhere"))).check_routes()


def test_a_provider_s_models_are_those_that_it_lists_now() -> None:
    """Models that it lists later are found, in a new list or in the same one, and those that are gone are not."""
    provider = ScriptedProvider("a")
    registry = ProviderRegistry("a-model")
    registry.register(provider)
    old = provider.models[0]
    listed = [old]
    provider.models = listed
    assert registry.resolve("a-model")[0].spec is old
    listed.append(replace(old, id="new"))
    assert registry.resolve("new")[0].spec is listed[1]
    provider.models = [listed[1]]
    with pytest.raises(ModelNotFound):
        registry.resolve("a-model")
