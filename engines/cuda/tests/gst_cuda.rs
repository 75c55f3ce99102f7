//! GStreamer's own CUDA library and uploader on a driver that keeps "device memory" in the process: that its memory maps to
//! the device's address. Not run by us on a GPU.
#![allow(clippy::unwrap_used)]

#[path = "mock/mod.rs"]
mod mock;

use std::sync::mpsc;

use gst::prelude::*;
use sightline_core::PixelFormat;
use sightline_engine_api::{Device, DevicePlane};
use sightline_engine_cuda::gstreamer::{CUDA_MEMORY, lend_memory};

#[test]
fn cuda_memory_maps_to_its_address() {
    let libraries = ["libcuda.so.1", "libnvcuvid.so.1"];
    let plugins = ["coreelements", "videotestsrc", "nvcodec"];
    mock::mocked("cuda_memory_maps_to_its_address", &libraries, &plugins, || {
        if gst::ElementFactory::find("cudaupload").is_none() {
            return mock::skipped(
                "cudaupload: expected GStreamer's nvcodec plugin to take the mock driver, got no element",
            );
        }
        let pipeline = gst::parse::launch(
            "videotestsrc num-buffers=3 pattern=snow ! video/x-raw,format=NV12,width=96,height=64 \
             ! cudaupload ! video/x-raw(memory:CUDAMemory) ! fakesink name=out",
        );
        let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
        let (sender, buffers) = mpsc::channel();
        let pad = pipeline.by_name("out").unwrap().static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            sender.send(info.buffer().unwrap().copy()).unwrap();
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let end = [gst::MessageType::Eos, gst::MessageType::Error];
        let message =
            pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &end).unwrap();
        assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
        let mut seen = 0;
        for buffer in buffers.try_iter() {
            assert!(buffer.peek_memory(0).is_type(CUDA_MEMORY));
            let planes = [(0, 512), (512 * 64, 512)]
                .map(|(offset_bytes, stride_bytes)| DevicePlane::Rows { offset_bytes, stride_bytes });
            let on = |ordinal| {
                let device = Device::Cuda { ordinal };
                lend_memory(buffer.copy(), device, PixelFormat::Nv12, (96, 64), &planes)
            };
            let error = on(1).unwrap_err();
            assert_eq!(error, "buffer in CUDA memory: expected one on cuda:1, got cuda:0");
            let lent = on(0).unwrap();
            let (address, len_bytes) = (lent.buffer().address(), lent.buffer().len_bytes());
            // What the processor is given is a copy elsewhere, of the same bytes.
            let host = buffer.map_readable().unwrap();
            assert_ne!(host.as_ptr().expose_provenance() as u64, address);
            let device: *const u8 = std::ptr::with_exposed_provenance(address as usize);
            // SAFETY: the stand-in's device memory is the process's own, and the buffer keeps it.
            let device = unsafe { std::slice::from_raw_parts(device, len_bytes) };
            assert!(device[..96 * 64] == host[..96 * 64], "frame {seen}");
            assert!(device.iter().any(|byte| *byte != 0), "frame {seen}");
            seen += 1;
        }
        assert_eq!(seen, 3);
        pipeline.set_state(gst::State::Null).unwrap();
    });
}
