"""OpenAI's legacy completions dialect: wire types, pure conversion, thin routes."""
