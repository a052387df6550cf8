"""The import rule that import-linter doesn't bring along."""

import pytest
from grimp import ImportGraph

from tests.import_rules import AllowedPackages


@pytest.mark.parametrize(
    ("imported", "kept"),
    [("json", True), ("msgspec", True), ("house.hall", True), ("httpx", False), ("msgspec_more", False)],
)
def test_only_named_packages_may_be_imported(imported: str, kept: bool) -> None:
    """The standard library, our own modules and the packages named are allowed, in the package and all below it."""
    rule = AllowedPackages(
        "The cellar is plain", {}, {"source_packages": ["house.cellar"], "allowed_packages": ["msgspec"]}
    )
    graph = ImportGraph()
    for module in ("house", "house.hall", "house.cellar", "house.cellar.wine"):
        graph.add_module(module)
    graph.add_import(importer="house.cellar.wine", imported=imported)
    graph.add_import(importer="house.hall", imported="httpx")
    assert rule.check(graph, verbose=False).kept is kept
