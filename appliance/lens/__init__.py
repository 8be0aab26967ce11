"""What a stranger holds up to a lens is parsed here, and nothing secret lives here."""
