"""What is stressed, and by what: language models and tasks."""
