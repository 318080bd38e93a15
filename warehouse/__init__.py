"""Settings, object store, layout of objects and Arrow contracts: what all packages build on."""
