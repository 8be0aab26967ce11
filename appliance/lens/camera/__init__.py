"""Step 1, the input image. Where frames come from: a V4L2 device, a Raspberry Pi camera, or pictures.

A camera is made closed. Only `open` touches a device, and after `close` nothing in this process holds
it: idle means no open handle.
"""

from appliance.errors import ConfigurationError
from appliance.lens.camera.interface import STALL, Camera, CameraAbsent, CameraBroke, Frame
from appliance.lens.camera.picamera import RaspberryPiCamera
from appliance.lens.camera.replay import ReplayCamera
from appliance.lens.camera.v4l2 import V4l2Camera
from appliance.settings import Camera as CameraSettings

__all__ = ["STALL", "Camera", "CameraAbsent", "CameraBroke", "Frame", "open_camera"]


def open_camera(settings: CameraSettings) -> Camera:
    """The camera that the settings name, still closed: no device is touched before its `open`.

    Raises:
        ConfigurationError: a replay without a folder or video.
    """
    if settings.source == "v4l2":
        return V4l2Camera(settings.device, settings.width, settings.height)
    if settings.source == "picamera2":
        return RaspberryPiCamera(settings.width, settings.height)
    if settings.replay is None:
        raise ConfigurationError('camera.source = "replay" needs camera.replay = "/a/folder"')
    return ReplayCamera(settings.replay, settings.width, settings.height)
