"""Limits: how much a key, a project, an upstream and the whole gateway may use, counted over all workers."""
