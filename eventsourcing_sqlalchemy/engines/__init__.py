"""The engines that applications of a process share, their pools, and how statements run on them."""
