"""Plugins of a launcher named house, one of each kind, which new-plugin writes in other names."""
