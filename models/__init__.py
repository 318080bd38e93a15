"""GRU4Rec and its baselines: training, evaluation, gate, registry and the scorer that serves."""
