"""The way to the services: addresses, channels, calls with deadlines and retries, pages and resumable streams."""
