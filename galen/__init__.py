"""What every room shares: recipes, manifests, atomic output, progress, errors.

Light: no torch, no megatron.
"""

__version__ = "0.1.0"
