"""A small stand-in for the Kimi web chat site and an OpenAI API, served over real HTTP, with failure knobs.

For the offline demo, for tests and for benchmarks; no model is behind it. `live.running()` starts one in a thread,
`live.serve()` runs one in the caller's event loop.
"""
