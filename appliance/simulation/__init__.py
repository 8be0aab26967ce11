"""A whole door without hardware: only pin, wire and lens are simulated."""
