"""Upstreams with Gemini's API, `generateContent`."""
