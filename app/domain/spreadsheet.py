"""Cells of CSV files, which are opened in spreadsheets."""

# What spreadsheets take for the beginning of a formula, which they would run.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> object:
    """A value that a spreadsheet shows as it is: what it would take for a formula has an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
