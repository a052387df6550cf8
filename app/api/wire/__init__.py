"""What dialects share on the wire: reading bodies, contents and tools, and the forms of OpenAI."""
