"""A run and its surroundings: flags, output folder, messages, files. Nothing here is about audio or learning."""
