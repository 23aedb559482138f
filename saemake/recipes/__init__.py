"""Recipes: everything that the bytes of an artifact are a function of, and nothing else.

A recipe is hashed as JSON with sorted keys. Paths, device, logging and what is made beside an
artifact are not in it.
"""
