"""Append events: messages, batches, acknowledgements, and which appends are whole."""
