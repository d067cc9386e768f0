"""Whether the export answers, in a process of its own, as the trained tables say."""
