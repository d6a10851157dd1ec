"""The `mini` command. `main.py` finds the command that was typed; each group of commands is a small file."""
