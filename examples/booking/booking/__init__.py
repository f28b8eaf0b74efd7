"""Appointment booking for many businesses, each with its own tables."""
