r"""The loops that take a method's steps, and what they write down."""
