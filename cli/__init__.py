"""The commands of `shallop`."""
