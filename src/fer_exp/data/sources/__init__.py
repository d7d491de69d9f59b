"""Image sources: class folders and synthetic images."""
