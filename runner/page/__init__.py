"""The page at `/` of the HTTP server: what runs, its queues and subscribers as they are now, and its dead letters."""
