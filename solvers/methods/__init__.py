r"""The methods: each file is a family, and each method is data."""
