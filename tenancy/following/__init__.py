"""Read a leader's notifications and process them for one follower of one tenant. The runner and rebuilds share it."""
