"""The collector: event contract, outbox, flusher, replay and the shop simulator."""
