"""A library and a model for other programs: over HTTP as OpenAI's and Cohere's clients ask, and over MCP."""
