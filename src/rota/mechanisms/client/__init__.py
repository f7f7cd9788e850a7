"""A client that sends a trace to any OpenAI-compatible server and measures what comes back. Needs the extra ``engine`` (aiohttp)."""
