r"""Linear processes whose drift and diffusion are matrices that act on blocks of the state."""
