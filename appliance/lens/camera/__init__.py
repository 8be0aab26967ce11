"""Where frames come from: a V4L2 device, a Raspberry Pi camera, or a folder of pictures."""
