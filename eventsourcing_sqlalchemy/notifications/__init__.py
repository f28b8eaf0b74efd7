"""Wake-ups: how a process learns that events were committed, by itself or by another process."""
