//! A frame's picture on its way through the corridor.

use std::{
    cell::{OnceCell, RefCell},
    sync::Arc,
};

use gst_video::prelude::*;
use sightline_core::{OwnedPicture, Picture, Plane};
use sightline_engine_api::{Device, DevicePicture, EngineError, Kind, PictureSource};

use crate::{
    device::{Memory, Unreadable},
    pixels::Layout,
};

/// The picture of a frame that came in system memory is a copy, rows packed: a reference would pin the decoder's pool and,
/// worse, make the next element that draws copy the whole frame on the streaming thread (0.42 ms against 0.16 ms at 720p
/// NV12). Of one that came in device memory it is the buffer, held until the frame is through. A model on that device
/// reads it where it lies; the host is given a copy when it first asks.
///
/// Slots are reused: after the first frames nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct FramePicture {
    size_px: (u32, u32),
    lent: Option<(Arc<Layout>, gst::Buffer)>,
    /// What the device that asked last was told.
    there: RefCell<Option<(Device, Option<DevicePicture>)>>,
    here: OnceCell<Result<OwnedPicture, Unreadable>>,
    /// Room for the next copy.
    spare: RefCell<OwnedPicture>,
}

impl FramePicture {
    /// Copies a buffer's picture.
    pub(crate) fn copy(&mut self, layout: &Layout, buffer: &gst::BufferRef) -> Result<(), Unreadable> {
        self.clear();
        self.size_px = (layout.width_px(), layout.height_px());
        self.here = OnceCell::from(Ok(self.read(layout, buffer)?));
        Ok(())
    }

    /// Holds a buffer in device memory. Nothing of it is read yet.
    pub(crate) fn hold(&mut self, layout: &Arc<Layout>, buffer: gst::Buffer) -> Result<(), Unreadable> {
        self.clear();
        layout.memory.check(&buffer)?;
        self.size_px = (layout.width_px(), layout.height_px());
        self.lent = Some((Arc::clone(layout), buffer));
        Ok(())
    }

    /// Lets go of the buffer; whether its pixels were fetched. Its pool may be at work under this.
    pub(crate) fn clear(&mut self) -> bool {
        let here = self.here.take();
        let fetched = self.lent.is_some() && matches!(here, Some(Ok(_)));
        if let Some(Ok(owned)) = here {
            *self.spare.get_mut() = owned;
        }
        *self.there.get_mut() = None;
        self.lent = None;
        fetched
    }

    /// Why the pixels could not be had, if somebody asked for them.
    pub(crate) fn failure(&self) -> Option<&Unreadable> {
        self.here.get()?.as_ref().err()
    }

    /// The same, unless it was told for all buffers of these caps.
    pub(crate) fn untold_failure(&self) -> Option<&Unreadable> {
        let told = self.lent.as_ref().is_some_and(|(layout, _)| layout.said.is_unreadable());
        self.failure().filter(|_| !told)
    }

    /// Whether that is to be told: it will be the same for all buffers of these caps, and was not told yet.
    pub(crate) fn must_tell(&self) -> bool {
        let lasts = self.failure().is_some_and(|failure| failure.lasts);
        lasts && self.lent.as_ref().is_some_and(|(layout, _)| layout.said.unreadable())
    }

    fn read(&self, layout: &Layout, buffer: &gst::BufferRef) -> Result<OwnedPicture, Unreadable> {
        let mut owned = self.spare.take();
        let done = match layout.memory {
            Memory::System | Memory::Cuda => read_mapped(layout, buffer, &mut owned),
            Memory::Nvmm => layout.memory.read_surface(layout, buffer, &mut owned),
        };
        match done {
            Ok(()) => Ok(owned),
            Err(error) => {
                self.spare.replace(owned);
                Err(error)
            }
        }
    }
}

impl PictureSource for FramePicture {
    fn size_px(&self) -> (u32, u32) {
        self.size_px
    }

    fn on_device(&self, device: Device) -> Option<DevicePicture> {
        let (layout, buffer) = self.lent.as_ref()?;
        let mut told = self.there.borrow_mut();
        if let Some((_, there)) = told.as_ref().filter(|(asked, _)| *asked == device) {
            return there.clone();
        }
        let there = layout.lend(buffer, device).inspect_err(|reason| layout.said.fetched(reason)).ok();
        *told = Some((device, there.clone()));
        there
    }

    fn on_host(&self) -> Result<Picture<'_>, EngineError> {
        let refuse = |kind, got: &str| Err(EngineError::new(kind, "picture", "pixels on the host", got));
        let here = match &self.lent {
            Some((layout, buffer)) => Some(self.here.get_or_init(|| self.read(layout, buffer))),
            None => self.here.get(),
        };
        match here {
            Some(Ok(owned)) => Ok(owned.picture()?),
            Some(Err(error)) => refuse(if error.lasts { Kind::Interface } else { Kind::Run }, &error.text),
            None => refuse(Kind::Interface, "none yet"),
        }
    }
}

/// Mapping CUDA memory for the processor makes GStreamer fetch it.
fn read_mapped(layout: &Layout, buffer: &gst::BufferRef, into: &mut OwnedPicture) -> Result<(), Unreadable> {
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &layout.info)?;
    let mut planes = [Plane::default(); 3];
    for (index, plane) in planes.iter_mut().enumerate().take(layout.format.planes()) {
        let stride_bytes = usize::try_from(frame.plane_stride()[index]).unwrap_or(0);
        *plane = Plane { data: frame.plane_data(index as u32)?, stride_bytes };
    }
    let picture = Picture::new(layout.format, layout.width_px(), layout.height_px(), &planes)
        .map_err(|error| gst::glib::bool_error!("{error}"))?;
    into.copy_from(&picture.with_color(layout.matrix, layout.range));
    Ok(())
}

#[cfg(test)]
mod tests {
    use sightline_core::PixelFormat;

    use super::*;
    use crate::pixels::FORMATS;

    #[test]
    fn every_format_is_copied_row_by_row() {
        gst::init().unwrap();
        for (ours, theirs) in PixelFormat::ALL.into_iter().zip(FORMATS) {
            // 33x17: odd, and strides that are not the rows' bytes.
            let caps = gst_video::VideoCapsBuilder::new()
                .format(theirs)
                .width(33)
                .height(17)
                .framerate(gst::Fraction::new(25, 1))
                .build();
            let layout = Layout::from_caps(&caps).unwrap();
            assert_eq!(layout.format, ours);
            let bytes: Vec<u8> = (0..layout.info.size()).map(|i| (i * 7 % 251) as u8).collect();
            let buffer = gst::Buffer::from_mut_slice(bytes.clone());
            let mut copy = FramePicture::default();
            copy.copy(&layout, &buffer).unwrap();
            let picture = copy.on_host().unwrap();
            for (plane, view) in picture.planes().iter().enumerate() {
                let (row_bytes, rows) = ours.plane_extent(plane, 33, 17);
                let (offset, stride) = (layout.info.offset()[plane], layout.info.stride()[plane] as usize);
                for row in 0..rows {
                    assert_eq!(
                        &view.data[row * view.stride_bytes..][..row_bytes],
                        &bytes[offset + row * stride..][..row_bytes],
                        "{theirs} plane {plane} row {row}"
                    );
                }
            }
            assert!(!copy.clear(), "a copy is no fetch");
            assert!(copy.on_host().is_err());
        }
    }

    #[test]
    fn a_short_buffer_is_an_error() {
        gst::init().unwrap();
        let caps = gst_video::VideoCapsBuilder::new()
            .format(gst_video::VideoFormat::Rgb)
            .width(32)
            .height(16)
            .framerate(gst::Fraction::new(25, 1))
            .build();
        let layout = Layout::from_caps(&caps).unwrap();
        let buffer = gst::Buffer::from_mut_slice(vec![0_u8; 100]);
        assert!(FramePicture::default().copy(&layout, &buffer).is_err());
    }
}
