"""A rule that import-linter lacks: what may be imported from outside, rather than what may not."""

import sys
from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AllowedPackages(Contract):
    """Allow the standard library, the packages named, and nothing else from outside.

    Options:
        source_packages: Packages of ours that the rule is for, with all that is in them.
        allowed_packages: Top-level names of other people's packages.
    """

    type_name = "allowed_packages"

    source_packages = fields.SetField(subfield=fields.StringField())
    allowed_packages = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002  # the base class's signature
        """Look through the direct imports."""
        sources = cast("set[str]", self.source_packages)
        ours = {name.partition(".")[0] for name in sources}
        allowed = sys.stdlib_module_names | cast("set[str]", self.allowed_packages) | ours
        modules = sources.union(*(graph.find_descendants(name) for name in sources))
        refused = [
            (module, imported)
            for module in sorted(modules)
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if imported.partition(".")[0] not in allowed
        ]
        return ContractCheck(kept=not refused, metadata={"refused": refused})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each import that isn't allowed."""
        for module, imported in check.metadata["refused"]:
            output.print_error(f"{module} is not allowed to import {imported}.")
        output.new_line()
