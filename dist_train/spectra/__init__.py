"""Waveforms -> spectral features, and their normalisation."""
