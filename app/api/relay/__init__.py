"""Endpoints that the gateway passes on to upstreams with an API: embeddings, images, audio and the like."""
