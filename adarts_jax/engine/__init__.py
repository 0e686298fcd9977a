"""The host side of training: devices, files, clocks and signals around the steps."""
