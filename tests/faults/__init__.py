"""Launch faults injected into real processes: what each says, and when, with this library and with plain torch."""
