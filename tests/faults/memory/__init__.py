"""Faults that are about the ranks alone, played in memory by the library's own code, in milliseconds."""
