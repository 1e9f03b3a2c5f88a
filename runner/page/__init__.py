"""The web page at `/` of the HTTP server: the current state of queues and subscribers, and the dead letters."""
