r"""Argument checks of all public functions ("doors"): values and signatures."""
