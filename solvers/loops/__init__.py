r"""The loops that take a method's steps, and the records they keep."""
