"""`tombola compress`: the smallest model within an allowed loss of accuracy, searched for and shipped."""
