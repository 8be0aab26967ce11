"""What is measured by hand before it ships: the thresholds of a pack, and the gates on a picture."""
