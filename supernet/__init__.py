"""Spiking transformers with entangled weights: neurons, layers, training, extraction, data."""
