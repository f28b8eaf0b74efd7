"""What a process reports of its work: lines of the log, metrics and traces. No report contains an event or a value."""
