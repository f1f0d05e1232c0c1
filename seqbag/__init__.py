"""seqbag: convolutional nets on logs and images, trained one layer at a time by counting patches."""

__version__ = "0.1.0"
