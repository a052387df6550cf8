"""Any upstream that speaks OpenAI chat completions: one class, and the differences as rows of data."""
