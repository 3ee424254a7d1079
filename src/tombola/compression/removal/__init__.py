"""Structured removal: units of a network that are really gone, in every layer that has a part of them.

`trace` reads the network once, `labels` and `rules` find which dimensions belong together, `groups` are what may go,
`plan` chooses, `remove` changes a copy, `constants` keeps what removed units still gave, `verify` compares.
"""
