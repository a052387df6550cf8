"""A small stand-in of the Kimi web chat site, served over real HTTP, with failure knobs.

For the offline demo, for tests and for benchmarks; no model is behind it. `live.running()` starts one in a
thread, `live.serve()` runs one in the event loop that calls it.
"""
