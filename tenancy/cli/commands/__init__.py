"""The commands, by noun or verb."""
