"""OpenAI's responses dialect: wire types, pure conversion, thin routes, and the responses that are kept."""
