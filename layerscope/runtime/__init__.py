"""Where and how work runs: devices, memory, processors, ranks, clusters, timers, write threads."""
