"""What the example is told to do; a config file in Python may compute its values."""

from math import isqrt

SAMPLES = 256
EPOCHS = 20
BATCH = isqrt(SAMPLES)
OPTIMIZER = {"lr": 0.1, "momentum": 0.9}
