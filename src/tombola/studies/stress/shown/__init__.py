"""What a study's outcome looks like: figures, journals in words, lines in the terminal."""
