"""The tracking context: experiments, runs, what they log, and their artifacts."""
