"""The server: the HTTP API over the controller, and the process that holds both."""
