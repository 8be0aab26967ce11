"""People, consent and commands: the only zone that knows a name."""
