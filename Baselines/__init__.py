"""Rankings without training, which every model must beat."""
