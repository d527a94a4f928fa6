"""Tracking: experiments, runs, metrics and logged models."""
