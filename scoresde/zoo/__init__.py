r"""Models in files: weights as safetensors, and a JSON card that describes them."""

from .classifiers import load_classifier, save_classifier
from .files import load
from .write import save

__all__ = ["load", "load_classifier", "save", "save_classifier"]
