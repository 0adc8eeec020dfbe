r"""The doors of all public functions: values and signatures."""
