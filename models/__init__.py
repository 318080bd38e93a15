"""GRU4Rec, its baselines, evaluation, the gate, the registry and the scorer."""
