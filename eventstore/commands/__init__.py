"""Commands: load the state of their streams, decide, append, and decide again when another writer was faster."""
