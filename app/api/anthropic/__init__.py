"""The Anthropic API's messages, as Claude Code and Anthropic's SDKs speak them."""
