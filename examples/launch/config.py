"""The values of the example; a config file in Python may compute them."""

from math import isqrt

SAMPLES = 256
EPOCHS = 20
BATCH = isqrt(SAMPLES)
OPTIMIZER = {"lr": 0.1, "momentum": 0.9}
