"""Model packs: what they must be, how they are fetched, converted and proved. Never runs at the door."""
