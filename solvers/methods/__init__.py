r"""The methods: each file a family, each method data."""
