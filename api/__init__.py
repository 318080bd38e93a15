"""The FastAPI app: collector, recommendations, pages."""
