"""Trains the demo picture generator: text to product picture, a small latent diffusion model in diffusers' format."""
