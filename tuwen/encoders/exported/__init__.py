"""Encoders converted once for this processor, kept in a folder, and run without the libraries that they came from."""
