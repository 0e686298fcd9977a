"""Image data: sources, splits, and augmentation on the device."""
