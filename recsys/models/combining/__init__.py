"""Models made of other models: cascade, blend, and the hybrid that chooses for itself."""
