"""What the ranks of a launch say to each other, without the network: a test plays it in memory."""
