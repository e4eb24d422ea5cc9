"""A run: its flags, its folder, what it prints."""
