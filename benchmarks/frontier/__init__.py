r"""Members of the field that need no training, each in a file of its own, measured beside the best of the catalogue.

A file has a function `run(model, z, calls, grid)` that leads noise z at t_max to samples within a budget of network
calls, with the last denoising, or raises a ValueError if it cannot. A file with several members lists them by
name in `MEMBERS`, and one with other grids to choose from lists them in `GRIDS`.
"""
