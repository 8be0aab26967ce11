"""What a stranger holds up to a lens is parsed here, and nothing secret lives here.

Lens touches the camera and the models. It never touches pins, keys, templates, a database, names or a
network: what it could lose is what passes before it, a token's bytes and a probe, one look at a time.
"""
