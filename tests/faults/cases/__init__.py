"""The faults, as data: one module for each way of going wrong."""
