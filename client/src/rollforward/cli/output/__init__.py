"""The output of results and errors: tables, JSON documents and progress."""
