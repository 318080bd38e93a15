"""What shops already send, read as our events: a module for each protocol.

Each is a pure function of a request's bytes to `Decoded`, under the rules of `ingest.rules`. What
has no place in the contract is kept in `extra`. The bytes kept of a rejected event are a whole
request of that one event, so that the same function can read them again.
"""
