"""Captions over HTTP: OpenAI's API and our own, requests gathered into batches, and a page."""
