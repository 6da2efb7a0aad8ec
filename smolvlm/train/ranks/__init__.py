"""What several ranks do together apart from the step: rows measured once, times, who waits."""
