"""Gemini's API, as Google's SDKs speak it. Imported at its first request, but for its errors."""
