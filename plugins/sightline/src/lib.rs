//! GStreamer elements: sightlinetrack and sightlineoverlay.
