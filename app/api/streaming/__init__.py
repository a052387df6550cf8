"""Streamed answers: opened late enough to fail honestly, kept alive, and typed out where they came whole."""
