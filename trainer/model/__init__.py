"""Defines the dot-product-plus-bias model, its tables and optimizers."""
