"""What each command does, once cli.py has parsed its words."""
