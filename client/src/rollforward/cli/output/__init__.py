"""How results and failures are printed: tables, JSON documents and progress."""
