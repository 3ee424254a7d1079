"""What the rows of a study come to. Nothing here trains or draws."""
