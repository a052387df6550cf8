"""Tools and JSON mode on a model that answers text only: what it is told, and how its reply is read. No I/O."""
