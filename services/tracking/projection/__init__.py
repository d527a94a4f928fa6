"""The tables of tracking, and what each event means for them."""
