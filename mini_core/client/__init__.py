"""The client half: which server, which key, and how to talk to it. Runs on Linux, macOS and Windows."""
