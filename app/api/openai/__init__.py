"""The OpenAI dialect: wire types, pure conversion, thin routes."""
