"""Pictures to train and measure with: pairs of high and low resolution."""
