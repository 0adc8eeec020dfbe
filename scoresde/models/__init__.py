r"""Score models, and the facts and checks about them."""
