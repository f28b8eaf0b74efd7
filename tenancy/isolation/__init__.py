"""Where tenants' tables go: names, placements, and how an application is told its placement."""
