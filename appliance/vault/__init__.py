"""Templates, and the keys that open them one at a time; no image is ever parsed here."""
