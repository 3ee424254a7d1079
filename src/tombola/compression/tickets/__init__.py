"""Ticket files: a mask, where it restarts from and what it learned, in one small file."""
