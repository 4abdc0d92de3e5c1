"""The ranks of a launch meet: one store, one roll call, one process group."""
