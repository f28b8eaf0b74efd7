"""The doctor: examine and repair a fleet."""
