"""Tools and JSON mode for a model that only answers text: instructions, and reading its reply. No I/O."""
