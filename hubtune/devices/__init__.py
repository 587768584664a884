"""The device: number formats, memory, processes and sharding."""
