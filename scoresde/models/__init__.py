r"""Score models, and what is known and checked of them."""
