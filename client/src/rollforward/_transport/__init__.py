"""The transport: addresses, channels, calls with deadlines and retries, pages and resumable streams."""
