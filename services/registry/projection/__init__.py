"""The tables of the registry, and what each event means for them."""
