"""The services: tracking, registry and serving each own a log; audit reads all of them. They meet in events only."""
