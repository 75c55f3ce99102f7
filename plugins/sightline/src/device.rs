//! Memories beside the system's: which of them are offered here, how they are lent to a device, and how a frame comes out
//! of them where it must.
//!
//! A buffer in device memory passes as it is, and a model on that device reads it where it lies. GStreamer itself fetches CUDA
//! memory for the host, whose library a producer of such buffers has loaded anyway; NVMM is fetched through `engines/cuda`.

use std::sync::LazyLock;

use sightline_core::OwnedPicture;
use sightline_engine_api::{Device, DevicePicture};

use crate::pixels::{FORMATS, Layout};

/// Where the pixels of a stream's buffers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Memory {
    /// Where the processor can read them.
    #[default]
    System,
    /// In CUDA memory, of GStreamer's own allocator.
    Cuda,
    /// In an `NvBufSurface`: Jetson's and DeepStream's.
    Nvmm,
}

/// Formats of NVMM that we can read.
const NVMM_FORMATS: [gst_video::VideoFormat; 6] = [
    gst_video::VideoFormat::Nv12,
    gst_video::VideoFormat::I420,
    gst_video::VideoFormat::Rgbx,
    gst_video::VideoFormat::Bgrx,
    gst_video::VideoFormat::Rgba,
    gst_video::VideoFormat::Bgra,
];

/// Why a frame could not be copied.
#[derive(Debug, Clone)]
pub(crate) struct Unreadable {
    pub(crate) text: String,
    /// Whether the frames after it will be no different.
    pub(crate) lasts: bool,
}

impl From<gst::glib::BoolError> for Unreadable {
    fn from(error: gst::glib::BoolError) -> Self {
        Self { text: error.to_string(), lasts: false }
    }
}

impl Memory {
    /// Its caps feature.
    fn feature(self) -> &'static str {
        match self {
            Self::System => "memory:SystemMemory",
            Self::Cuda => "memory:CUDAMemory",
            Self::Nvmm => "memory:NVMM",
        }
    }

    /// The memory that negotiated caps speak of.
    pub(crate) fn of(caps: &gst::CapsRef) -> Self {
        let has =
            |memory: &Self| caps.features(0).is_some_and(|features| features.contains(memory.feature()));
        [Self::Cuda, Self::Nvmm].into_iter().find(has).unwrap_or_default()
    }

    /// Caps of several memories, the one we would rather be given first.
    pub(crate) fn caps(memories: &[Self]) -> gst::Caps {
        let mut caps = gst::Caps::new_empty();
        for memory in memories {
            let formats: &[_] = if *memory == Self::Nvmm { &NVMM_FORMATS } else { &FORMATS };
            let mine = gst_video::VideoCapsBuilder::new().format_list(formats.iter().copied());
            let mine = match memory {
                Self::System => mine.build(),
                _ => mine.features([memory.feature()]).build(),
            };
            caps.merge(mine);
        }
        caps
    }

    /// Whether a buffer can be in it. Looks at no pixels and waits for nothing.
    pub(crate) fn check(self, buffer: &gst::BufferRef) -> Result<(), Unreadable> {
        let foreign = |memory: &&gst::MemoryRef| !memory.is_type("gst.cuda.memory");
        match self {
            Self::System => Ok(()),
            Self::Nvmm => surfaces_found().map_err(|text| Unreadable { text, lasts: true }),
            Self::Cuda => match buffer.iter_memories().find(foreign) {
                None => Ok(()),
                Some(memory) => {
                    let got = memory.allocator().map_or("none", |allocator| allocator.memory_type().as_str());
                    let text = format!("buffer with {}: expected gst.cuda.memory, got {got}", self.feature());
                    Err(Unreadable { text, lasts: true })
                }
            },
        }
    }

    /// Copies an NVMM buffer's picture.
    #[cfg(feature = "nvmm")]
    pub(crate) fn read_surface(
        self,
        layout: &Layout,
        buffer: &gst::BufferRef,
        into: &mut OwnedPicture,
    ) -> Result<(), Unreadable> {
        use sightline_engine_cuda::{gstreamer::SurfaceFrame, nvmm::NvmmError};
        let failed = |error: NvmmError| Unreadable { text: error.to_string(), lasts: !error.can_continue() };
        let frame = SurfaceFrame::of(buffer).map_err(failed)?;
        let picture = frame.picture();
        let (expected, got) = (layout.format, picture.format);
        if expected != got || picture.width_px < layout.width_px() || picture.height_px < layout.height_px() {
            let size = |width, height| format!("{width}x{height}");
            let text = format!(
                "nvmm surface: expected {expected:?} of {}, as its caps say, got {got:?} of {}",
                size(layout.width_px(), layout.height_px()),
                size(picture.width_px, picture.height_px)
            );
            return Err(Unreadable { text, lasts: true });
        }
        let (size_px, color) = ((layout.width_px(), layout.height_px()), (layout.matrix, layout.range));
        into.read_from(layout.format, size_px, color, |plane, row_bytes, rows| {
            frame.download(plane, row_bytes, rows).map_err(failed)
        })
    }

    #[cfg(not(feature = "nvmm"))]
    pub(crate) fn read_surface(
        self,
        _layout: &Layout,
        _buffer: &gst::BufferRef,
        _into: &mut OwnedPicture,
    ) -> Result<(), Unreadable> {
        Err(Unreadable { text: surfaces_found().err().unwrap_or_default(), lasts: true })
    }
}

/// Whether NVMM can be read by this process.
fn surfaces_found() -> Result<(), String> {
    #[cfg(feature = "nvmm")]
    return sightline_engine_cuda::gstreamer::nvmm_found().map_err(|error| error.to_string());
    #[cfg(not(feature = "nvmm"))]
    Err("buffer with memory:NVMM: expected a build with the feature nvmm, got none".to_owned())
}

impl Layout {
    /// The picture of a buffer in device memory where it lies, for that device to read. Never on a streaming thread.
    ///
    /// # Errors
    /// Why the device cannot.
    #[cfg(feature = "cuda")]
    pub(crate) fn lend(&self, buffer: &gst::Buffer, device: Device) -> Result<DevicePicture, String> {
        use sightline_engine_api::DevicePlane;
        use sightline_engine_cuda::gstreamer;
        let size_px = (self.width_px(), self.height_px());
        let picture = match self.memory {
            Memory::System => Err("it is there already".to_owned()),
            Memory::Cuda => {
                let meta = buffer.meta::<gst_video::VideoMeta>();
                let (offsets, strides) = match &meta {
                    Some(meta) => (meta.offset(), meta.stride()),
                    None => (self.info.offset(), self.info.stride()),
                };
                let planes: Vec<DevicePlane> = offsets
                    .iter()
                    .zip(strides)
                    .map(|(offset_bytes, stride)| DevicePlane::Rows {
                        offset_bytes: *offset_bytes,
                        // One that runs upwards is too short for every picture.
                        stride_bytes: usize::try_from(*stride).unwrap_or(0),
                    })
                    .collect();
                gstreamer::lend_memory(buffer.clone(), device, self.format, size_px, &planes)
            }
            #[cfg(feature = "nvmm")]
            Memory::Nvmm => gstreamer::lend_surface(buffer.clone(), device, self.format, size_px)
                .map_err(|error| error.to_string()),
            #[cfg(not(feature = "nvmm"))]
            Memory::Nvmm => surfaces_found().and(Err(String::new())),
        };
        picture.map(|picture| picture.with_color(self.matrix, self.range))
    }

    #[cfg(not(feature = "cuda"))]
    pub(crate) fn lend(&self, _buffer: &gst::Buffer, _device: Device) -> Result<DevicePicture, String> {
        Err("built without the feature cuda".to_owned())
    }
}

/// The memories of this process, looked for once: the system's last, so that buffers stay where they are.
pub(crate) fn found() -> &'static [Memory] {
    static FOUND: LazyLock<Vec<Memory>> = LazyLock::new(|| {
        let mut memories = vec![Memory::System];
        let mut look = |memory: Memory, found: Result<(), String>| match found {
            Ok(()) => memories.insert(0, memory),
            Err(reason) => gst::info!(gst::CAT_RUST, "{} is not offered: {reason}", memory.feature()),
        };
        look(Memory::Cuda, locate::cuda());
        look(Memory::Nvmm, locate::nvmm());
        memories
    });
    &FOUND
}

/// What is there, as this machine says.
#[cfg(not(test))]
mod locate {
    pub(super) fn cuda() -> Result<(), String> {
        #[cfg(feature = "cuda")]
        return sightline_engine_cuda::gstreamer::driver_found();
        #[cfg(not(feature = "cuda"))]
        Err("built without the feature cuda".to_owned())
    }

    pub(super) fn nvmm() -> Result<(), String> {
        super::surfaces_found()
    }
}

/// In the unit tests everything is said to be found, and nothing is there.
#[cfg(test)]
mod locate {
    pub(super) fn cuda() -> Result<(), String> {
        Ok(())
    }

    pub(super) fn nvmm() -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the pads offer without a GPU, word for word.
    #[test]
    fn system_memory_alone_is_what_it_was() {
        gst::init().unwrap();
        let caps = Memory::caps(&[Memory::System]);
        assert_eq!(
            caps.to_string(),
            "video/x-raw, format=(string){ NV12, I420, YUY2, RGB, BGR, RGBx, BGRx, RGBA, BGRA }, \
             width=(int)[ 1, 2147483647 ], height=(int)[ 1, 2147483647 ], \
             framerate=(fraction)[ 0/1, 2147483647/1 ]"
        );
        assert_eq!(caps, gst_video::VideoCapsBuilder::new().format_list(FORMATS).build());
    }

    #[test]
    fn caps_say_their_memory() {
        gst::init().unwrap();
        let all = [Memory::Nvmm, Memory::Cuda, Memory::System];
        let caps = Memory::caps(&all);
        assert_eq!(caps.size(), 3);
        for ((structure, features), memory) in caps.iter_with_features().zip(all) {
            let one = gst::Caps::builder_full()
                .structure_with_features(structure.to_owned(), features.to_owned())
                .build();
            assert_eq!(Memory::of(&one), memory);
        }
    }
}
