"""All that crosses between zones, and nothing else: closed enumerations and fixed-size binary."""
