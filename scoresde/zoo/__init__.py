r"""Models in files: weights as safetensors, and a JSON card that describes them."""

from .classifiers import load_classifier, save_classifier
from .constructors import register_network
from .files import load, load_chain
from .write import save

__all__ = [
    "load",
    "load_chain",
    "load_classifier",
    "register_network",
    "save",
    "save_classifier",
]
